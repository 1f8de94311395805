"""imagededup's PHash over a folder, hash and search: prints seconds of the processor and the number of files with a twin.

Run by benchmarks/curation.py with a Python that has imagededup; its children's seconds count. The packages import
torchvision for the neural method; the hashes do not need it, so their modules are loaded without the packages' __init__.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

folder = sys.argv[1]
spec = importlib.util.find_spec("imagededup")
assert spec is not None
assert spec.origin is not None
for name in ("imagededup", "imagededup.methods", "imagededup.utils"):
    package = types.ModuleType(name)
    package.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
    sys.modules[name] = package
from imagededup.methods.hashing import PHash  # noqa: E402

hasher = PHash(verbose=False)
start = sum(os.times()[:4])
found = hasher.find_duplicates(
    image_dir=folder, max_distance_threshold=10, scores=True, num_enc_workers=0, num_dist_workers=0
)
print(json.dumps({"seconds": sum(os.times()[:4]) - start, "with_duplicates": sum(bool(v) for v in found.values())}))
