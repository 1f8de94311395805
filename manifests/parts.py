"""Sapiens2's 29 classes of the `segmentation` column: names, ids, and which class is which in a mirror.

Left is the person's left. Standard library alone: the trainer's augmentation reads this too.
"""

from __future__ import annotations

CLASSES = (
    *("Background", "Apparel", "Eyeglass", "Face_Neck", "Hair"),
    *("Left_Foot", "Left_Hand", "Left_Lower_Arm", "Left_Lower_Leg", "Left_Shoe", "Left_Sock"),
    *("Left_Upper_Arm", "Left_Upper_Leg", "Lower_Clothing"),
    *("Right_Foot", "Right_Hand", "Right_Lower_Arm", "Right_Lower_Leg", "Right_Shoe", "Right_Sock"),
    *("Right_Upper_Arm", "Right_Upper_Leg", "Torso", "Upper_Clothing"),
    *("Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue"),
)
# Pixels that carry no label, ignored by losses and metrics.
UNLABELLED = 255
ID = {name: i for i, name in enumerate(CLASSES)}

# How much a pixel of each class counts in Sapiens2's and v1's cross entropy; v1's 28 classes are these without Eyeglass.
WEIGHTS = (0.1, 10, 10, 3, 2, 4, 4, 2, 2, 6, 10, 3, 3, 1, 4, 4, 2, 2, 6, 10, 3, 3, 1, 1, 10, 10, 10, 10, 10)
EYEGLASS = ID["Eyeglass"]
WEIGHTS28 = WEIGHTS[:EYEGLASS] + WEIGHTS[EYEGLASS + 1 :]
# TO28[c] is the id of class c among the 28; an eyeglass has none.
TO28 = tuple(UNLABELLED if c in (EYEGLASS, UNLABELLED) else c - (c > EYEGLASS) for c in range(256))


def _other(name: str) -> str:
    side, _, rest = name.partition("_")
    return {"Left": f"Right_{rest}", "Right": f"Left_{rest}"}.get(side, name)


# MIRROR[c] is the class of a pixel of class c once the picture is mirrored; 255 stays 255.
MIRROR = (*(ID[_other(name)] for name in CLASSES), *range(len(CLASSES), 256))
MIRROR28 = tuple(TO28[MIRROR[c]] for c in range(len(CLASSES)) if c != EYEGLASS)
