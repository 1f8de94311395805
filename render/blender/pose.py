"""A clip's frame and a dictionary of bone angles -> the pose of an imported rig."""

from __future__ import annotations

import difflib
from typing import Any

import bpy
from mathutils import Euler

from manifests.errors import AssetError
from render.scene import Pose

# What importers put round a clip's own name: "Armature|walk|BaseLayer", "walk_Armature".
SEPARATORS = "|"


def strike(asset_id: str, objects: list[Any], pose: Pose) -> None:
    """Pose the armatures and animated objects among ``objects``; the animation is baked, then removed.

    Raises AssetError naming the clips or bones there are.
    """
    if pose.clip is None:
        # Whatever the last file was posed at; and pose bones show their animation only once a frame is set.
        bpy.context.scene.frame_set(1)
    else:
        _play(asset_id, objects, pose.clip, pose.frame)
    rigs = [o for o in objects if o.type == "ARMATURE"]
    if not pose.bones:
        return
    bones = {b.name: b for rig in rigs for b in rig.pose.bones}
    if not bones:
        raise AssetError(asset_id, "it has no rig, so no bones to turn; take `bones` out, or give a rigged file")
    # Animation would write over the bones at the next evaluation: keep what it did, and drop it.
    for rig in rigs:
        held = {b.name: b.matrix_basis.copy() for b in rig.pose.bones}
        rig.animation_data_clear()
        for bone in rig.pose.bones:
            bone.matrix_basis = held[bone.name]
    for name, degrees in pose.bones:
        if name not in bones:
            near = difflib.get_close_matches(name, bones, 3, 0.4) or sorted(bones)[:3]
            raise AssetError(
                asset_id, f"no bone {name}; the nearest of its {len(bones)} are {', '.join(near)}; mend `bones`"
            )
        turn = Euler([d * 0.017453292519943295 for d in degrees], "XYZ").to_matrix().to_4x4()
        bones[name].matrix_basis = bones[name].matrix_basis @ turn
    bpy.context.view_layer.update()


def joints(rigs: list[Any]) -> dict[str, list[list[float]]]:
    """Bone -> [head, tail], each [x, y, z] in the world, of armatures as they are posed now."""
    graph = bpy.context.evaluated_depsgraph_get()
    found: dict[str, list[list[float]]] = {}
    for rig in (o.evaluated_get(graph) for o in rigs):
        for bone in rig.pose.bones:
            # Two rigs in one file may use one name: the first keeps it.
            found.setdefault(bone.name, [list(rig.matrix_world @ end) for end in (bone.head, bone.tail)])
    return found


def clips(actions: list[Any]) -> list[str]:
    """Names of clips, as a job may give them, sorted."""
    return sorted({_clip_name(a.name) for a in actions})


def _clip_name(action: str) -> str:
    parts = action.split(SEPARATORS)
    return parts[1] if len(parts) > 1 else parts[0]


def _play(asset_id: str, objects: list[Any], clip: str, frame: int) -> None:
    """Show ``frame`` of ``clip`` on every object and shape key that it moves."""
    actions = [a for a in bpy.data.actions if clip in (a.name, _clip_name(a.name))]
    if not actions:
        known = clips(list(bpy.data.actions))
        raise AssetError(asset_id, f"no clip {clip}; it has {', '.join(known) or 'none'}; mend `clip`")
    low = min(a.frame_range[0] for a in actions)
    high = max(a.frame_range[1] for a in actions)
    if not low - 1 <= frame <= high + 1:
        raise AssetError(asset_id, f"clip {clip} has frames {low:g} to {high:g}, not {frame}; mend `frame`")
    blocks = [(o, "OBJECT") for o in objects]
    blocks += [(o.data.shape_keys, "KEY") for o in objects if o.type == "MESH" and o.data.shape_keys]
    for block, kind in blocks:
        chosen = _slot(actions, block.name, kind)
        if chosen is None:
            continue
        data = block.animation_data or block.animation_data_create()
        for track in data.nla_tracks:
            track.mute = True
        data.action = chosen[0]
        data.action_slot = chosen[1]
    bpy.context.scene.frame_set(frame)


def _slot(actions: list[Any], name: str, kind: str) -> tuple[Any, Any] | None:
    """The action and slot made for the data-block ``name``; the glTF and FBX importers name slots after it."""
    for action in actions:
        for slot in action.slots:
            if slot.target_id_type == kind and slot.name_display == name:
                return action, slot
    return None
