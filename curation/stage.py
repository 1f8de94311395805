"""The tables of curation: what is measured of an input, the rules in order of cost, and what a decision row holds."""

from __future__ import annotations

import pyarrow as pa

from manifests.sample import BOX

STEPS = (
    "read",
    "header",
    "provenance",
    "decode",
    "quality",
    "hash",
    "detect",
    "text",
    "style",
    "embed",
    "heads",
    "face",
)
READINGS = ("both", "height", "max_side", "sqrt_area")
# rule -> its reason code; the first three of the files themselves give the error's own code.
RULES = {
    "read": "io_error",
    "dup_exact": "dup_exact",
    "header": "format",
    "min_side": "too_small",
    "aspect": "aspect",
    "tombstone": "tombstone",
    "optout": "optout",
    "synthetic": "synthetic_tag",
    "licence": "licence",
    "decode": "corrupt",
    "blur": "blur",
    "dark": "dark",
    "bright": "overexposed",
    "entropy": "low_info",
    "border": "flat_border",
    "person": "no_person",
    "score": "low_score",
    "box_size": "small_box",
    "head": "no_head",
    "text": "text_overlay",
    "drawn": "drawn",
    "tiled": "watermark_tiled",
    "watermark": "watermark",
    "artistic": "artistic",
    "nsfw": "nsfw",
    "aesthetic": "low_aesthetic",
    "realism": "unrealistic",
    "yaw": "head_yaw",
    "pitch": "head_pitch",
    "watermark_source": "watermark_source",
    "dup_near": "dup_near",
    "dup_semantic": "dup_semantic",
    "balance": "balanced_out",
    "measured": "not_measured",
}
# Rules of stages that need weights -> what to give in the job's curate section.
NEEDS = {
    "head": "head_detector",
    "watermark": "heads.watermark",
    "artistic": "heads.artistic",
    "nsfw": "heads.nsfw",
    "aesthetic": "heads.aesthetic",
    "realism": "heads.realism",
    "yaw": "face",
    "pitch": "face",
    "dup_semantic": "embedding",
    "balance": "embedding",
}
# error code of a measurement -> the rule it fails.
ERRORS = {
    "io_error": "read",
    "download_failed": "read",
    "empty": "read",
    "format": "header",
    "animated": "header",
    "too_large": "header",
    "corrupt": "decode",
    "kills_worker": "decode",
}
STATUS = pa.dictionary(pa.int8(), pa.string())
STATUSES = ("pass", "fail", "error", "skipped")
MEASUREMENTS = pa.schema(
    [
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("file", pa.string()),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("licence", pa.string()),
        ("consent", pa.string()),
        ("redistributable", pa.bool_()),
        ("author", pa.string()),
        ("url", pa.string()),
        ("metadata", pa.string()),
        ("sha256", pa.string()),
        ("bytes", pa.int64()),
        ("format", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("orientation", pa.int32()),
        ("optout", pa.string()),
        ("synthetic", pa.string()),
        ("blur", pa.float32()),
        ("dark", pa.float32()),
        ("bright", pa.float32()),
        ("entropy", pa.float32()),
        ("border", pa.float32()),
        ("phash", pa.binary()),
        ("phash_mirrored", pa.binary()),
        ("phash_trimmed", pa.binary()),
        ("phash_trimmed_mirrored", pa.binary()),
        ("thumb", pa.binary()),
        ("detector", pa.string()),
        ("detector_sha256", pa.string()),
        ("weak", pa.bool_()),
        ("calibrated", pa.bool_()),
        ("boxes", pa.list_(BOX)),
        ("head_detector_sha256", pa.string()),
        ("heads", pa.list_(BOX)),
        ("text", pa.float32()),
        ("drawn", pa.float32()),
        ("tiled", pa.float32()),
        ("watermark", pa.float32()),
        ("artistic", pa.float32()),
        ("nsfw", pa.float32()),
        ("aesthetic", pa.float32()),
        ("realism", pa.float32()),
        ("yaw", pa.float32()),
        ("pitch", pa.float32()),
        ("roll", pa.float32()),
        ("models", pa.string()),
        ("embedding", pa.binary()),
        ("stopped", pa.string()),
        ("error", pa.string()),
        ("error_detail", pa.string()),
        ("ms", pa.struct([(step, pa.float32()) for step in STEPS])),
    ]
)
# What only the whole corpus can say of an input; a row without it has nulls.
CORPUS = pa.schema([("site", pa.string()), ("watermark_source", pa.float32()), ("cluster_path", pa.string())])
CHECK = pa.struct([("status", STATUS), ("measured", pa.float32()), ("threshold", pa.float32())])
DECIDED = pa.schema(
    [
        ("kept", pa.bool_()),
        ("first_fail", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("checks", pa.struct([(rule, CHECK) for rule in RULES])),
        ("dup_group", pa.string()),
        ("dup_of", pa.string()),
        ("dup_distance", pa.int32()),
        ("sampling_weight", pa.float32()),
    ]
)
# Needed to find pairs, and by nobody after that.
NOT_DECISIONS = ("phash_mirrored", "phash_trimmed", "phash_trimmed_mirrored", "thumb", "embedding")
DECISIONS = pa.schema([*(f for f in MEASUREMENTS if f.name not in NOT_DECISIONS), *CORPUS, *DECIDED])
