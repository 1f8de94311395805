"""The papers' rules as complete policies: every threshold with where it is from.

Neither paper published its curation; what they leave open is filled in by a measured or a deliberate choice that says so.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Rule(NamedTuple):
    """``value`` of a field of Policy, and its ``source``."""

    value: Any
    source: str


S1, S2 = "Sapiens, arXiv 2408.12569, section 3.1", "Sapiens2, data section"
OURS = "ours"
# What any preset needs of a usable file and picture; the limits catch the unusable alone.
FILES = {
    "min_side_px": Rule(320, f"{OURS}: below it no box can pass 300 px"),
    "max_aspect": Rule(5.0, f"{OURS}: panoramas and strips"),
    "min_blur": Rule(8.0, f"{OURS}: 64 photographs of COCO have 300 and more"),
    "min_bright": Rule(24.0, f"{OURS}: the same 64 have 142 and more"),
    "max_dark": Rule(245.0, f"{OURS}: the same 64 have 70 at most"),
    "min_entropy": Rule(2.0, f"{OURS}: the same 64 have 5.3 bits and more"),
    "max_border": Rule(0.75, f"{OURS}: three quarters of the picture are frame"),
    "optout": Rule(True, f"{OURS}: law and courtesy, neither paper says"),
    "synthetic": Rule(True, f"{OURS}: pictures that say a model made them are not photographs"),
}
# Sapiens names "watermarks, text, artistic depictions or unnatural elements" and gives no measure of them.
CONTENT = {
    "max_text": Rule(0.5, f"{S1}: text; 0.5 is 4.5 % false alarms on COCO (benchmarks/curation_filters.py)"),
    "max_tiled": Rule(30.0, f"{S1}: watermarks; repetition in one picture, 2 of 64 photographs of COCO lie above"),
    "max_watermark": Rule(0.5, f"{S1}: watermarks; the head's own even odds"),
    "max_watermark_source": Rule(
        2.0, f"{S1}: watermarks; 1 is chance, clean sites stay below 1.3, marked ones above 4"
    ),
    "max_drawn": Rule(0.5, f"{S1}: artistic; 0.5 is 1 % false alarms on COCO"),
    "max_artistic": Rule(0.5, f"{S1}: artistic, unnatural; the head's own even odds"),
    "max_nsfw": Rule(0.5, f"{OURS}: the head's own even odds; neither paper says"),
}
PRESETS: dict[str, dict[str, Rule]] = {
    "sapiens": {
        **FILES,
        **CONTENT,
        "min_score": Rule(0.9, f"{S1}: detection score > 0.9; read as calibrated, since raw 0.9 keeps 18 to 33 %"),
        "min_box_px": Rule(300.0, f"{S1}: box dimensions > 300 px"),
        "side_rule": Rule("both", f"{S1}: 'dimensions', plural; the report counts the other readings"),
        "at_least": Rule(False, f"{S1}: 'exceeding', so strict"),
        "need_head": Rule(False, f"{S1}: says nothing of heads"),
        "duplicate_distance": Rule(47, f"{OURS}: Sapiens reports no removal; no false pair on COCO and LFW"),
        "semantic_distance": Rule(None, f"{S1}: reports no removal by features"),
        "min_aesthetic": Rule(None, f"{S1}: reports no such score"),
        "min_realism": Rule(None, f"{S1}: reports no such score"),
        "max_yaw_deg": Rule(None, f"{S1}: reports no head pose"),
        "max_pitch_deg": Rule(None, f"{S1}: reports no head pose"),
        "balance": Rule(None, f"{S1}: reports no balancing; weights are stored all the same"),
    },
    "sapiens2": {
        **FILES,
        **CONTENT,
        "min_side_px": Rule(384, f"{OURS}: below it no box can pass 384 px"),
        "min_score": Rule(0.9, f"{S2}: 'prominent' without a number; Sapiens's kept"),
        "min_box_px": Rule(384.0, f"{S2}: at least one prominent person with short side >= 384 px"),
        "side_rule": Rule("both", f"{S2}: the short side"),
        "at_least": Rule(True, f"{S2}: >= 384"),
        "need_head": Rule(True, f"{S2}: head-pose estimation needs a head; only where a head detector is given"),
        "duplicate_distance": Rule(47, f"{S2}: perceptual hash, no radius given; no false pair on COCO and LFW"),
        "semantic_distance": Rule(
            0.05, f"{S2}: deep-feature nearest neighbours, no radius given; SemDeDup's usual 0.05"
        ),
        "min_aesthetic": Rule(
            4.5, f"{S2}: aesthetic scoring, no number given; LAION's scale of 1 to 10, its lowest band"
        ),
        "min_realism": Rule(0.5, f"{S2}: realism scoring, no number given; the head's own even odds"),
        "max_yaw_deg": Rule(100.0, f"{S2}: head pose, no number given; profiles stay, backs of heads go"),
        "max_pitch_deg": Rule(60.0, f"{S2}: head pose, no number given; beyond it a face is foreshortened to half"),
        "balance": Rule(
            None, f"{S2}: selective sampling of clusters, no count given; set one, or train by the weights"
        ),
    },
}
