"""Anatomical joint angles in degrees -> rotations of anny's bones, and the limits within which people move.

Angles count from the zero pose: upright, arms hanging, thumbs forward, all limbs straight. Every joint turns about that
pose's axes (x to the person's left, -y forward, z up), so left and right differ by signs alone. A limb's rotation is
shared out along its bones: half of a twist in the upper half of a limb, a curve over the spine, a raised arm taking
its shoulder girdle along. Legend: D angles, B bones.
"""

from __future__ import annotations

import functools

import numpy as np

from render.people.body import Body

X, Y, Z = np.eye(3)
# joint -> its angles, outermost first: name, axis on the left side, least and most degrees. AAOS, Joint Motion (1965);
# knee, hip and ankle as far as deep squats and kneeling go (Hemmerich et al. 2006, J. Orthop. Res. 24); shoulder
# girdle and thumb after Kapandji, Physiology of the Joints; eyes after Guitton and Volle 1987 (comfortable gaze).
MIDDLE = {
    "root": (("pitch", X, -180, 180), ("roll", Y, -100, 100), ("turn", Z, -180, 180)),
    "spine": (("bend", X, -25, 80), ("side", Y, -35, 35), ("turn", Z, -45, 45)),
    "neck": (("bend", X, -45, 45), ("side", Y, -40, 40), ("turn", Z, -70, 70)),
}
SIDED = {
    "clavicle": (("raise", -Y, -8, 35), ("forward", Z * -1, -20, 25)),
    "shoulder": (("flex", -X, -60, 180), ("abduct", -Y, -45, 180), ("twist", -Z, -90, 80)),
    "elbow": (("flex", -X, 0, 150), ("pronate", -Z, -85, 80)),
    "wrist": (("flex", Y, -70, 80), ("deviate", -X, -30, 20)),
    "hip": (("flex", -X, -30, 130), ("abduct", -Y, -30, 50), ("twist", -Z, -60, 45)),
    "knee": (("flex", X, 0, 155),),
    "ankle": (("flex", -X, -50, 35), ("invert", -Y, -20, 35), ("turn", -Z, -30, 15)),
    "toes": (("flex", -X, -40, 70),),
    "finger2": (("spread", X * -1, -15, 20), ("flex", Y, -30, 95)),
    "finger3": (("spread", X * -1, -15, 15), ("flex", Y, -30, 95)),
    "finger4": (("spread", X * -1, -15, 15), ("flex", Y, -30, 95)),
    "finger5": (("spread", X * -1, -25, 15), ("flex", Y, -30, 95)),
    "middle2": (("flex", Y, 0, 110),),
    "middle3": (("flex", Y, 0, 110),),
    "middle4": (("flex", Y, 0, 110),),
    "middle5": (("flex", Y, 0, 110),),
    "tip2": (("flex", Y, -10, 80),),
    "tip3": (("flex", Y, -10, 80),),
    "tip4": (("flex", Y, -10, 80),),
    "tip5": (("flex", Y, -10, 80),),
    "thumb": (("oppose", -Z, -30, 60), ("flex", Y, -25, 45), ("stretch", -X, -25, 30)),
    "thumb_middle": (("flex", Y, -10, 60),),
    "thumb_tip": (("flex", Y, -15, 80),),
    "eye": (("down", X, -25, 30), ("left", Z, -35, 35)),
}
SIDES = ("L", "R")
# What bends about the same axis on both sides and is not mirrored: both eyes look left.
CONJUGATE = ("eye",)
JOINTS = {
    **MIDDLE,
    **{
        f"{name}.{side}": tuple(
            (a, axis if side == "L" or name in CONJUGATE else axis * (1, -1, -1), low, high)
            for a, axis, low, high in axes
        )
        for side in SIDES
        for name, axes in SIDED.items()
    },
}
ANGLES = tuple(f"{joint}.{axis[0]}" for joint, axes in JOINTS.items() for axis in axes)
AT = {name: i for i, name in enumerate(ANGLES)}
LOW, HIGH = (np.array([axis[k] for axes in JOINTS.values() for axis in axes], float) for k in (2, 3))
AXES = np.array([axis[1] for axes in JOINTS.values() for axis in axes])
# (joint, first angle, one past the last)
SPANS = {}
for _joint, _axes in JOINTS.items():
    _first = AT[f"{_joint}.{_axes[0][0]}"]
    SPANS[_joint] = (_first, _first + len(_axes))
# Shares of the spine's and neck's curve that are reached at each bone: the chest turns, the loins bend.
SPINE = {"spine05": 0.08, "spine04": 0.3, "spine03": 0.55, "spine02": 0.8, "spine01": 1.0}
NECK = {"neck01": 0.2, "neck02": 0.4, "neck03": 0.65, "head": 1.0}
# Shares of the forearm's twist along its bones; and of an upper limb's in its upper half.
FOREARM = {"lowerarm01": 0.15, "lowerarm02": 0.6}
HALF = 0.5
# The shoulder girdle goes along with an arm raised past 30 degrees, a third of the way (scapulohumeral rhythm 2:1).
RHYTHM, RHYTHM_FROM, RHYTHM_MOST = 1 / 3, 30.0, 40.0


def clamped(angles: np.ndarray) -> np.ndarray:
    """(D,) degrees within the limits."""
    return np.clip(angles, LOW, HIGH)


def mirrored(angles: np.ndarray) -> np.ndarray:
    """(D,) degrees of the mirror image: sides change places, turns and leanings change signs."""
    return angles[_MIRROR] * _MIRROR_SIGN


def turns(angles: np.ndarray) -> dict[str, np.ndarray]:
    """joint -> (3, 3) rotation within its parent, from (D,) degrees."""
    each = rotations(AXES * np.radians(angles)[:, None])
    found = {}
    for joint, (first, last) in SPANS.items():
        matrix = each[first]
        for i in range(first + 1, last):
            matrix = matrix @ each[i]
        found[joint] = matrix
    return found


class Rig:
    """anny's skeleton, read once: the zero pose in terms of its bones' resting directions."""

    def __init__(self, body: Body) -> None:
        self.names = body.bone_names
        self._parents = body.parents
        self._index = {name: i for i, name in enumerate(self.names)}
        figure = body.figure({"age": 0.67, "gender": 0.5})
        # The reference pose, in which all rotations are the identity.
        heads = np.zeros_like(figure.heads)
        for i, p in enumerate(self._parents):
            if p >= 0:
                heads[i] = heads[p] + figure.turn[p] @ (figure.heads[i] - figure.heads[p])
        self._zero, self._thumb_axes, self._twist = _zero_frames(dict(zip(self.names, heads)))

    def bones(self, joints: dict[str, np.ndarray]) -> np.ndarray:
        """(B, 3, 3) each bone's rotation from the reference pose to the world, from (3, 3) rotations of joints.

        Joints left out do not turn. The root's rotation turns the whole person.
        """
        still = np.eye(3)
        get = lambda name: joints.get(name, still)  # noqa: E731
        world = np.tile(still, (len(self.names), 1, 1))
        root = get("root")
        spine, neck = get("spine"), get("neck")
        chest = root @ spine
        head = chest @ neck
        placed: dict[str, np.ndarray] = {"root": root}
        placed |= {bone: root @ power(spine, share) for bone, share in SPINE.items()}
        placed |= {bone: chest @ power(neck, share) for bone, share in NECK.items()}
        for side in SIDES:
            placed[f"pelvis.{side}"] = root
            placed[f"eye.{side}"] = head @ get(f"eye.{side}")
            placed |= self._arm(side, chest, joints)
            placed |= self._leg(side, root, joints)
        for i, (name, parent) in enumerate(zip(self.names, self._parents)):
            if name in placed:
                world[i] = placed[name] @ self._zero.get(name, still)
            elif parent >= 0:
                world[i] = world[parent]
        return world

    def local(self, world: np.ndarray) -> dict[str, np.ndarray]:
        """bone -> (3, 3) rotation relative to its parent, as Body.posed takes it."""
        found = {}
        for i, (name, parent) in enumerate(zip(self.names, self._parents)):
            found[name] = world[i] if parent < 0 else world[parent].T @ world[i]
        return found

    def _arm(self, side: str, chest: np.ndarray, joints: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        still = np.eye(3)
        get = lambda name: joints.get(f"{name}.{side}", still)  # noqa: E731
        shoulder = get("shoulder")
        swing, twist = swing_twist(shoulder)
        girdle = get("clavicle") @ _rhythm(shoulder)
        upper = chest @ shoulder
        bend, pronation = swing_twist(get("elbow"))
        fore = upper @ bend
        # What the skin of the forearm is twisted by: the zero pose is not the one it was modelled in.
        sign = 1 if side == "L" else -1
        bias = rotation(Z, -sign * self._twist)
        placed = {
            f"clavicle.{side}": chest @ power(girdle, 0.5),
            f"shoulder01.{side}": chest @ girdle,
            f"upperarm01.{side}": chest @ swing @ power(twist, HALF),
            f"upperarm02.{side}": upper,
        }
        for bone, share in FOREARM.items():
            placed[f"{bone}.{side}"] = fore @ power(bias.T @ pronation, share)
        hand = fore @ pronation @ get("wrist")
        placed[f"wrist.{side}"] = hand
        for i in range(2, 6):
            at = hand
            for bone, joint in ((1, "finger"), (2, "middle"), (3, "tip")):
                at = at @ get(f"{joint}{i}")
                placed[f"finger{i}-{bone}.{side}"] = at
        at = hand
        for bone, joint in ((1, "thumb"), (2, "thumb_middle"), (3, "thumb_tip")):
            turn = get(joint)
            if bone > 1:
                # A hinge about the thumb's own axis: the angle is what counts.
                flex = np.arctan2(turn[0, 2], turn[0, 0]) * (1 if side == "L" else -1)
                axis = self._thumb_axes if side == "L" else self._thumb_axes * (1, -1, -1)
                turn = rotation(axis, flex)
            at = at @ turn
            placed[f"finger1-{bone}.{side}"] = at
        return placed

    def _leg(self, side: str, root: np.ndarray, joints: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        still = np.eye(3)
        hip = joints.get(f"hip.{side}", still)
        swing, twist = swing_twist(hip)
        thigh = root @ hip
        shin = thigh @ joints.get(f"knee.{side}", still)
        foot = shin @ joints.get(f"ankle.{side}", still)
        toes = foot @ joints.get(f"toes.{side}", still)
        placed = {
            f"upperleg01.{side}": root @ swing @ power(twist, HALF),
            f"upperleg02.{side}": thigh,
            f"lowerleg01.{side}": shin,
            f"lowerleg02.{side}": shin,
            f"foot.{side}": foot,
        }
        return placed | {f"toe{i}-1.{side}": toes for i in range(1, 6)}


def rotations(vectors: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotation matrices of (N, 3) rotation vectors in radians (Rodrigues)."""
    angle = np.linalg.norm(vectors, axis=-1)
    x, y, z = (vectors / np.maximum(angle, 1e-12)[..., None]).T
    s, c = np.sin(angle), np.cos(angle)
    t = 1 - c
    rows = [t * x * x + c, t * x * y - s * z, t * x * z + s * y]
    rows += [t * x * y + s * z, t * y * y + c, t * y * z - s * x]
    rows += [t * x * z - s * y, t * y * z + s * x, t * z * z + c]
    return np.stack(rows, axis=-1).reshape(*angle.shape, 3, 3)


def rotation(axis: np.ndarray, radians: float) -> np.ndarray:
    """(3, 3) rotation about a unit axis."""
    return rotations((axis * radians)[None])[0]


def vector(matrix: np.ndarray) -> np.ndarray:
    """(3,) rotation vector in radians of a (3, 3) rotation."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrix).as_rotvec()


def power(matrix: np.ndarray, share: float) -> np.ndarray:
    """``share`` of a rotation about its own axis."""
    if share == 1.0:
        return matrix
    return rotations((vector(matrix) * share)[None])[0]


def swing_twist(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(swing, twist) with matrix = swing @ twist, the twist about z, the limb's own axis in the zero pose."""
    from scipy.spatial.transform import Rotation

    q = Rotation.from_matrix(matrix).as_quat()
    length = np.hypot(q[2], q[3])
    # A half turn about a level axis has no twist of its own.
    angle = 2 * np.arctan2(q[2], q[3]) if length > 1e-6 else 0.0
    twist = rotation(Z, float((angle + np.pi) % (2 * np.pi) - np.pi))
    return matrix @ twist.T, twist


def frame(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(3, 3) columns: unit ``first``, unit part of ``second`` across it, and their cross product."""
    a = first / np.linalg.norm(first)
    b = second - (second @ a) * a
    b /= np.linalg.norm(b)
    return np.stack([a, b, np.cross(a, b)], axis=1)


def shortest(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) least rotation that takes direction ``a`` to ``b``."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    axis = np.cross(a, b)
    length = np.linalg.norm(axis)
    return rotation(axis / max(length, 1e-12), float(np.arctan2(length, a @ b)))


def _rhythm(shoulder: np.ndarray) -> np.ndarray:
    """(3, 3) what the shoulder girdle does of a raised arm's swing."""
    raised = shoulder @ -Z
    angle = np.degrees(np.arccos(np.clip(-raised[2], -1, 1)))
    axis = np.cross(-Z, raised)
    length = np.linalg.norm(axis)
    if angle < RHYTHM_FROM or length < 1e-6:
        return np.eye(3)
    share = min((angle - RHYTHM_FROM) * RHYTHM, RHYTHM_MOST)
    return rotation(axis / length, np.radians(share))


def _zero_frames(at: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """bone -> (3, 3) rotation from the reference to the zero pose; the thumb's hinge; the forearm's own twist.

    From the left side's bone heads ``at``; the right is its mirror image.
    """
    to = lambda a, b: at[f"{b}.L"] - at[f"{a}.L"]  # noqa: E731
    upper, fore = to("upperarm01", "lowerarm01"), to("lowerarm01", "wrist")
    hinge = np.cross(upper, fore)
    left: dict[str, np.ndarray] = {}
    zero = frame(-Z, -X)
    left["upperarm01"] = left["upperarm02"] = zero @ frame(upper, hinge).T
    left["lowerarm01"] = left["lowerarm02"] = zero @ frame(fore, hinge).T
    knuckles = to("finger5-1", "finger2-1")
    hand = frame(-Z, -Y) @ frame(to("wrist", "finger3-1"), knuckles).T
    left["wrist"] = hand
    thumb_side = left["lowerarm01"] @ knuckles
    # How far the modelled hand is pronated from thumb-forward.
    twist = float(np.arctan2(-thumb_side[0], -thumb_side[1]))
    for i in range(2, 6):
        first, second = to(f"finger{i}-1", f"finger{i}-2"), to(f"finger{i}-2", f"finger{i}-3")
        curl = np.cross(first, second)
        left[f"finger{i}-1"] = frame(-Z, Y) @ frame(first, curl).T
        for bone in (2, 3):
            left[f"finger{i}-{bone}"] = frame(-Z, Y) @ frame(second, curl).T
    for bone in (1, 2, 3):
        left[f"finger1-{bone}"] = hand
    tip = np.cross(to("finger1-1", "finger1-2"), to("finger1-2", "finger1-3"))
    axis = hand @ tip / np.linalg.norm(tip)
    left["upperleg01"] = left["upperleg02"] = shortest(to("upperleg01", "lowerleg01"), -Z)
    left["lowerleg01"] = left["lowerleg02"] = shortest(to("lowerleg01", "foot"), -Z)
    ahead = to("foot", "toe3-1") * (1, 1, 0)
    left["foot"] = shortest(ahead, -Y)
    for i in range(1, 6):
        left[f"toe{i}-1"] = left["foot"]
    flip = np.diag([-1.0, 1.0, 1.0])
    found = {f"{bone}.L": matrix for bone, matrix in left.items()}
    return found | {f"{bone}.R": flip @ matrix @ flip for bone, matrix in left.items()}, axis, twist


def _mirror_table() -> tuple[np.ndarray, np.ndarray]:
    swap = {"L": "R", "R": "L"}
    index, sign = [], []
    for name in ANGLES:
        parts = name.split(".")
        joint = ".".join([parts[0], *(swap[p] for p in parts[1:-1]), parts[-1]])
        index.append(AT[joint])
        flips = parts[-1] in ("side", "turn", "roll") and parts[0] in MIDDLE
        sign.append(-1.0 if flips or (parts[0] in CONJUGATE and parts[-1] == "left") else 1.0)
    return np.array(index), np.array(sign)


_MIRROR, _MIRROR_SIGN = _mirror_table()


@functools.cache
def rig_of(body: Body) -> Rig:
    """The rig of the process's one body."""
    return Rig(body)
