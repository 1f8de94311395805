"""BlenderProc's side of render_vs_blenderproc.py: run by the Python that BlenderProc lives in, told everything by one JSON.

Uses BlenderProc's public functions as its examples do: load once, add camera poses, render all, write HDF5.
"""

import json
import os
import sys
import time

os.environ["USE_EXTERNAL_BPY_MODULE"] = "1"
with open(sys.argv[1]) as file:
    told = json.load(file)
sys.path.insert(0, told["source"])
import blenderproc as bproc
import numpy as np


def prepare(width, height, K, samples, denoise):
    """One OBJ under one HDRI, as the other side has it."""
    bproc.init()
    bproc.renderer.set_cpu_threads(told["threads"])
    bproc.loader.load_obj(told["obj"])
    bproc.world.set_world_background_hdr_img(told["hdri"], strength=told["strength"])
    # BlenderProc counts pixels from their centres; the other side from their corners.
    K = np.array(K)
    K[:2, 2] -= 0.5
    bproc.camera.set_intrinsics_from_K_matrix(K, width, height)
    bproc.renderer.set_max_amount_of_samples(samples)
    bproc.renderer.set_noise_threshold(0)
    bproc.renderer.set_output_format(view_transform="Standard")
    bproc.renderer.set_denoiser("INTEL" if denoise else None)


def frames(count):
    """Render the first ``count`` poses and write one HDF5 each; seconds of both, and the data."""
    import bpy

    bpy.context.scene.frame_end = count
    started = time.perf_counter()
    data = bproc.renderer.render()
    rendered = time.perf_counter()
    bproc.writer.write_hdf5(told["out"], data)
    return rendered - started, time.perf_counter() - rendered, data


case = told["case"]
begun = time.perf_counter()
prepare(case["width"], case["height"], case["K"], told["samples"], True)
for pose in case["poses"]:
    bproc.camera.add_camera_pose(np.array(pose))
if told["mode"] == "time":
    # In this order: the normals' output reads the poses there are.
    bproc.renderer.enable_depth_output(activate_antialiasing=False)
    bproc.renderer.enable_normals_output()
    frames(1)
    cold = time.perf_counter() - begun
    rendered, written, data = frames(len(case["poses"]))
    np.savez(told["result"], **{k: data[k][0] for k in ("depth", "normals", "colors")})
    print("RESULT", json.dumps({"cold": cold, "render": rendered, "write": written, "frames": len(case["poses"])}))
else:
    import bpy

    colours = []
    for seed in told["seeds"]:
        bpy.context.scene.cycles.seed = seed
        colours.append(frames(1)[2]["colors"][0])
    bpy.context.scene.cycles.seed = told["reference_seed"]
    bproc.renderer.set_denoiser(None)
    bproc.renderer.set_max_amount_of_samples(told["reference"])
    np.savez(told["result"], colors=colours, reference=frames(1)[2]["colors"][0])
    print("RESULT {}")
sys.stdout.flush()
# bpy may crash on the way out; what was asked for is on disk.
os._exit(0)
