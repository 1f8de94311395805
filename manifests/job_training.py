"""The training sections of a job: what is learnt from which data, how, on what hardware, and how it is judged.

`training/settings.py` reads the resolved job into dataclasses of the same fields, on machines without pydantic.
"""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from manifests.model import Model
from manifests.priors import Share

Backbone = Literal[
    "tiny", "small", "base", "large", "0.6b", "1b", "2b",
    "sapiens2-tiny", "sapiens2-0.1b", "sapiens2-0.4b", "sapiens2-0.8b", "sapiens2-1b", "sapiens2-1b-4k", "sapiens2-5b",
    "dinov2-s", "dinov2-b", "dinov2-l", "dinov2-g", "dinov2-s-reg", "dinov2-b-reg", "dinov2-l-reg", "dinov2-g-reg",
    "dinov3-s", "dinov3-s-plus", "dinov3-b", "dinov3-l", "dinov3-h-plus", "dinov3-7b",
]  # fmt: skip
Task = Literal[
    "depth", "normal", "foreground", "parts", "parts28", "pose17", "pose133", "pose308", "pointmap", "albedo"
]
Loss = Literal[
    "affine", "silog", "cosine", "cosine_gradient", "matting", "cross_entropy_dice", "cross_entropy", "udp", "ohkm", "integral",
    "sapiens2",
]  # fmt: skip
POSES = ("pose17", "pose133", "pose308")
HEADS_OF_POSE = ("vitpose", "vitpose_simple")


class Optim(Model):
    """AdamW, and what guards it."""

    steps: int = Field(200, ge=1)
    batch: int = Field(8, ge=1, description="pictures a step, all workers and accumulated parts together")
    lr: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(20, ge=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(1.0, gt=0)
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights, which are then the result; 0 = none"
    )
    spike: float = Field(
        10.0,
        ge=0,
        description="a step whose loss or gradient is this many times the recent median is skipped; 0 = never",
    )
    checkpoint_every: int = Field(50, ge=1)


class Compute(Model):
    """How it runs. Only `precision` changes the weights beyond rounding, so only that is part of a checkpoint's digest."""

    workers: int = Field(1, ge=1, description="processes, one GPU each where there are GPUs")
    cpus: int = Field(0, ge=0, description="cores of each worker; 0 = the machine's cores shared out")
    gpu: Literal["auto", "yes", "no"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto = bfloat16 on GPUs that have it"
    )
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="fsdp shards weights and moments over the workers")
    accumulate: int = Field(1, ge=1, description="parts in which a worker takes its share of the batch")
    checkpointing: bool = Field(False, description="keep no activations inside blocks; compute them again")
    compile: bool = False
    fit: bool = Field(False, description="choose accumulate and checkpointing by the device's memory")
    failures: int = Field(3, ge=0, description="restarts from the last checkpoint when a worker dies")


class Augment(Model):
    """Random changes of a training sample. Geometry stays true: normals, depth and K turn with the picture."""

    crop: tuple[float, float] = Field((0.6, 1.0), description="share of the picture's area")
    stretch: float = Field(0.15, ge=0, lt=1, description="of the crop's sides against each other, as a log ratio")
    rotate_deg: float = Field(0.0, ge=0, le=180, description="about the optical axis, either way")
    rotate_share: Share = 0.5
    tilt_deg: float = Field(0.0, ge=0, le=30, description="of the camera about its centre, either way")
    flip: Share = 0.5
    backgrounds: str | None = Field(None, description="folder of photographs without people")
    background_share: Share = 0.8
    brightness: float = Field(0.1, ge=0, lt=1)
    contrast: float = Field(0.3, ge=0, lt=1)
    saturation: float = Field(0.3, ge=0, le=1)
    hue_deg: float = Field(10.0, ge=0, le=180)
    grey: Share = 0.0
    blur: Share = 0.0
    blur_px: float = Field(1.5, gt=0, description="largest standard deviation at the model's size")
    noise: Share = 0.0
    iso: float = Field(0.02, gt=0, description="largest deviation of sensor noise in mid grey")
    jpeg: Share = 0.0
    jpeg_quality: tuple[int, int] = (40, 95)
    box_shift: Share = Field(0.1, description="poses: of a person's box, either way, of its sides")
    box_scale: float = Field(0.25, ge=0, le=1, description="poses: a box grows or shrinks by up to this share")
    part_boxes: Share = Field(
        0.0, description="poses: boxes of a part of the body (AlphaPose's proposals, half bodies)"
    )

    @pydantic.model_validator(mode="after")
    def _ranges(self) -> Augment:
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop must rise within (0, 1], got {list(self.crop)}")
        if not 1 <= self.jpeg_quality[0] <= self.jpeg_quality[1] <= 100:
            raise ValueError(f"jpeg_quality must rise within 1..100, got {list(self.jpeg_quality)}")
        return self


class DistilledObjective(Model):
    """What Sapiens2's objective has beside the masked autoencoder; the defaults are the paper's where it tells them."""

    locals: int = Field(4, ge=0, description="small views of a picture, beside the two large ones")
    local_width: int = Field(48, ge=8)
    local_height: int = Field(64, ge=8)
    global_scale: tuple[float, float] = Field((0.5, 1.0), description="share of the picture's area in a large view")
    local_scale: tuple[float, float] = (0.2, 0.7)
    block_share: Share = Field(0.4, description="of the masks, in blocks in place of single patches")
    prototypes: int = Field(1024, ge=2, description="classes that student and teacher tell views apart by")
    hidden: int = Field(256, ge=8)
    bottleneck: int = Field(64, ge=4)
    weight: float = Field(0.4, ge=0)
    koleo: float = Field(0.04, ge=0)
    momentum: float = Field(0.992, ge=0, lt=1, description="of the teacher's weights")
    centre_momentum: float = Field(0.9, ge=0, lt=1)
    student_temperature: float = Field(0.1, gt=0)
    teacher_temperature: tuple[float, float] = Field((0.065, 0.07), description="first and last")
    warmup_steps: int = Field(1000, ge=0, description="steps from the first to the last teacher's temperature")


class PretrainStage(Model):
    """Masked autoencoder (He et al. 2022), or with `objective: sapiens2` also self-distillation of class tokens."""

    data: list[str] = Field(["curate", "render"], min_length=1, description="stages of this run, or dataset folders")
    weights: list[float] | None = Field(None, description="share of each of `data`; default: every row once per epoch")
    weighted: bool = Field(
        False, description="draw photographs by their `sampling_weight`, so that clusters come evenly; renders count 1"
    )
    model: Backbone = "tiny"
    width: int = Field(96, ge=16)
    height: int = Field(128, ge=16)
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    decoder_dim: int = Field(96, ge=8)
    decoder_depth: int = Field(2, ge=1)
    decoder: Literal["joint", "cross"] = Field(
        "joint", description="cross: masked patches look at seen ones only (CrossMAE)"
    )
    predict: float = Field(1.0, gt=0, le=1, description="share of the masked patches that are predicted")
    objective: Literal["mae", "sapiens2"] = "mae"
    distilled: DistilledObjective = DistilledObjective()
    augment: Augment = Augment(crop=(0.2, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, hue_deg=0.0)
    seed: int = 0
    optim: Optim = Optim()
    compute: Compute = Compute()


class DistilStage(Model):
    """A large model teaches this one."""

    teacher: str = Field(description="an earlier finetune of this job, or the model.safetensors of any")
    output: float = Field(1.0, ge=0, description="weight of the distance to what the teacher puts out")
    feature: float = Field(0.0, ge=0, description="weight of the distance to the teacher's final features")
    token_steps: int = Field(
        0, ge=0, description="steps in which the teacher learns ViTPose's knowledge token; 0 = none"
    )


class FinetuneStage(Model):
    """One dense task from the pre-trained encoder, and others beside it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    task: Task
    loss: Loss | None = Field(
        None,
        description="depth: affine, silog; normal: cosine, cosine_gradient; parts: cross_entropy_dice, cross_entropy; "
        "poses: udp, ohkm, integral; default the first",
    )
    also: dict[Task, float] = Field({}, description="further tasks, a head each, and the weights of their losses")
    data: list[str] = Field(["render"], min_length=1)
    weights: list[float] | None = Field(None, description="share of each of `data`; default: every row once per epoch")
    samples: int | None = Field(
        None, ge=1, description="of the training rows, so many, drawn by the seed; more hold fewer; default all"
    )
    init: str = Field("pretrain", description="`pretrain`, `random`, or a checkpoint file")
    model: Backbone = "tiny"
    width: int = Field(96, ge=16)
    height: int = Field(128, ge=16)
    layer_decay: float = Field(0.85, gt=0, le=1)
    patch_padding: Literal[0, 2] = Field(
        0, description="2 for Sapiens v1's pose and normal weights: their patches begin 2 px up and left"
    )
    head: Literal["light", "deconv", "sapiens2", "vitpose", "vitpose_simple", "dpt"] = Field(
        "light", description="deconv: Sapiens v1's, of fixed width; vitpose, vitpose_simple: poses alone"
    )
    head_width: int = Field(64, ge=0, description="channels where a head is widest; 0 = as published")
    init_head: bool = Field(False, description="take the head of `init` as well: a checkpoint of the same task")
    encoder_size: tuple[int, int] | None = Field(
        None, description="[height, width] px that the encoder sees of any picture (DAViD: head dpt); default all"
    )
    distil: DistilStage | None = None
    augment: Augment = Augment()
    seed: int = 0
    optim: Optim = Optim(weight_decay=0.1, betas=(0.9, 0.999))
    compute: Compute = Compute()

    @pydantic.model_validator(mode="after")
    def _suits(self) -> FinetuneStage:
        if self.loss is not None and self.loss not in TASK_LOSSES[self.task]:
            raise ValueError(f"loss {self.loss} is not one of {self.task}: {', '.join(TASK_LOSSES[self.task])}")
        tasks = [self.task, *self.also]
        if self.task in self.also:
            raise ValueError(f"also: {self.task} is the task itself; name others")
        if self.head in HEADS_OF_POSE and not set(tasks) <= set(POSES):
            raise ValueError(f"head {self.head} puts out heatmaps: it is for {', '.join(POSES)} alone")
        if self.distil and self.also:
            raise ValueError("distil: a teacher teaches one task; leave out `also`")
        if self.init_head and (self.also or self.init in ("pretrain", "random")):
            raise ValueError("init_head: needs a checkpoint file as init, and one task")
        return self


class EvaluateStage(Model):
    """Held-out identities, each finetune against the trivial predictors."""

    data: list[str] = Field(["render"], min_length=1)
    split: Literal["train", "val", "test"] = "test"
    alignment: Literal["none", "scale_median", "scale_lsq", "scale_shift_median", "scale_shift_lsq"] = Field(
        "scale_shift_lsq", description="what depth is given before it is judged, per picture"
    )
    bootstrap: int = Field(1000, ge=0, description="resamplings of identities for the 95 % intervals")
    seed: int = 0


class Power(Model):
    """What a sweep's energy is estimated by; nothing is measured at the wall."""

    cpu_core_w: float = Field(8.0, ge=0, description="of a busy core, its share of memory and board included")
    gpu_w: float = Field(700.0, ge=0, description="of a GPU in use, whatever its load: H100 and H200 are rated so")
    overhead: float = Field(1.2, ge=1, description="cooling and conversion: power usage effectiveness of the place")


class SweepStage(Model):
    """A scaling study: one fine-tune over sizes of data, sizes of model, sources and seeds, each judged alike."""

    base: str = Field(description="name of the fine-tune that is varied")
    samples: list[int] = Field(min_length=1, description="training rows of each step")
    models: list[Backbone] | None = Field(None, min_length=1, description="default: the base's")
    sources: dict[str, list[str]] | None = Field(
        None, min_length=1, description="name: stages of this run or dataset folders; default: the base's data"
    )
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    init: Literal["random", "base"] = Field(
        "random", description="base: as the base's `init` says, for all sizes alike"
    )
    bootstrap: int = Field(1000, ge=0, description="resamplings of seeds and held-out people for the intervals")
    power: Power = Power()

    @pydantic.model_validator(mode="after")
    def _distinct(self) -> SweepStage:
        for name in ("samples", "models", "seeds"):
            values = getattr(self, name) or []
            if len(set(values)) != len(values):
                raise ValueError(f"{name} holds a value twice: {values}")
        if min(self.samples) < 1:
            raise ValueError(f"samples must be 1 or more, got {min(self.samples)}")
        return self


_POSE: tuple[Loss, ...] = ("udp", "ohkm", "integral")
TASK_LOSSES: dict[str, tuple[Loss, ...]] = {
    "depth": ("affine", "silog"),
    "normal": ("cosine", "cosine_gradient"),
    "foreground": ("matting",),
    "parts": ("cross_entropy_dice", "cross_entropy"),
    "parts28": ("cross_entropy_dice", "cross_entropy"),
    "pose17": _POSE,
    "pose133": _POSE,
    "pose308": _POSE,
    "pointmap": ("sapiens2",),
    "albedo": ("sapiens2",),
}
