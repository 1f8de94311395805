"""The job manifest: YAML in, checked pydantic models out; every unknown key or bad value becomes one line with the
nearest name.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import Field

from manifests.assets import SOURCE_NAMES, SOURCES, AnnySource, AssetSource
from manifests.curation import CurateStage
from manifests.errors import InputError, JobError
from manifests.job_training import EvaluateStage, FinetuneStage, PretrainStage, SweepStage
from manifests.model import Model, read_yaml
from manifests.priors import BackgroundPrior, CameraPrior, FramingShares, LightPrior, PeoplePrior, Share, SplitShares


class Engine(Model):
    """Blender's settings. `eevee` paints RGB alone, on a GPU; depth is then checked by one Cycles sample."""

    renderer: Literal["cycles", "eevee"] = "cycles"
    samples: int = Field(16, ge=1, le=4096, description="samples per pixel")
    denoiser: Literal["none", "fast", "balanced", "high", "accurate"] = Field(
        "balanced",
        description="fast is 0.6 dB behind balanced; high is 0.5 to 0.7 dB ahead and takes a twelfth longer for a frame; "
        "accurate cleans albedo and normals first, at 1.6 times the time: no gain at 16 samples",
    )
    max_bounces: int = Field(4, ge=0)
    device: Literal["auto", "cpu", "optix", "cuda", "hip", "oneapi", "metal"] = Field(
        "auto", description="auto = the first kind of GPU found, else the CPU; only CPUs give equal bytes everywhere"
    )


class Verify(Model):
    """Limits of the two-engine check."""

    tolerance_m: float = Field(1e-4, gt=0)
    opaque_share: Share = 0.999
    strand_share: Share = Field(0.9, description="of strands' pixels; two may differ however few there are")


class RenderStage(Model):
    """People + light + camera -> samples."""

    samples: int = Field(36, ge=1)
    width: int = Field(384, ge=16, le=4096)
    height: int = Field(512, ge=16, le=4096)
    views: int = Field(1, ge=1, le=64, description="consecutive samples that show one scene, each by its own camera")
    samples_per_task: int = Field(32, ge=1)
    seed: int = 0
    people_seed: int = 0
    assets: list[AssetSource] = Field(default=[AnnySource()], min_length=1)
    splits: SplitShares = SplitShares()
    people: PeoplePrior = PeoplePrior()
    framing: FramingShares = FramingShares()
    camera: CameraPrior = CameraPrior()
    lighting: LightPrior = LightPrior()
    background: BackgroundPrior = BackgroundPrior()
    transparent: Literal["see_through", "surface"] = Field(
        "see_through",
        description="whether geometry sees through blended materials such as glasses (DAViD, appendix A.2)",
    )
    extras: list[Literal["normal_shading", "albedo"]] = Field([], description="optional channels")
    engine: Engine = Engine()
    verify_limits: Verify = Verify()
    image_format: Literal["jpeg", "jpeg444", "png", "webp"] = "jpeg"
    depth_format: Literal["u16", "float32"] = Field("u16", description="u16: within 0.02 mm; float32: every bit")
    normal_bits: Literal[12, 16, 32] = Field(12, description="per octahedral axis: 0.06 or 0.004 degree; 32: every bit")
    workers: int = Field(0, ge=0, description="0 = one per core")
    threads: int = Field(0, ge=0, description="of each worker; 0 = the cores shared out")
    deadline_s: float = Field(600.0, gt=0, description="floor of a task's deadline")
    recycle_tasks: int = Field(100, ge=1)
    recycle_rss_mb: int = Field(6000, ge=500, description="a worker above this is replaced after its task")
    max_rss_mb: int = Field(16000, ge=500, description="a worker above this is killed at once")

    @pydantic.model_validator(mode="after")
    def _catcher(self) -> RenderStage:
        if self.background.ground_shadows and self.engine.renderer == "eevee":
            raise ValueError(
                "background.ground_shadows needs a shadow catcher, which eevee lacks; take renderer cycles"
            )
        return self


class ReportStage(Model):
    """One self-contained HTML page."""

    samples: int = Field(12, ge=1, description="rows of the contact sheet")
    rejected: int = Field(4, ge=1, description="pictures per reject reason")


class Job(Model):
    """A whole job; each section may be absent."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    runs: str = Field("runs", description="folder that holds the run folder")
    render: RenderStage | None = None
    curate: CurateStage | None = None
    pretrain: PretrainStage | None = None
    finetune: list[FinetuneStage] = Field([])
    evaluate: EvaluateStage | None = None
    sweep: SweepStage | None = None
    report: ReportStage | None = None

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Job:
        names = [f.name for f in self.finetune]
        if len(set(names)) != len(names):
            twice = next(n for i, n in enumerate(names) if n in names[:i])
            raise ValueError(f"finetune: two are named {twice}; give each a name of its own")
        if self.sweep and self.sweep.base not in names:
            raise ValueError(f"sweep.base {self.sweep.base} is no fine-tune; the job has {', '.join(names) or 'none'}")
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.runs) / self.name


# Fields that change no byte of a stage's output: they stay out of its digest.
NOT_IN_DIGEST = {
    "workers",
    "threads",
    "deadline_s",
    "recycle_tasks",
    "recycle_rss_mb",
    "max_rss_mb",
    "picture_deadline_s",
    "tombstones",
    "partition",
    "partition_mb",
    "samples",
    "device",
}


def digest_fields(stage: Model) -> dict[str, Any]:
    """The fields of a stage that change its bytes, as plain JSON values. A larger `samples` appends, so it is not
    one.
    """
    fields = stage.model_dump(mode="json")
    dropped = NOT_IN_DIGEST if isinstance(stage, RenderStage | CurateStage) else set()
    kept = {k: v for k, v in fields.items() if k not in dropped}
    if "engine" in kept:
        kept["engine"] = {k: v for k, v in kept["engine"].items() if k != "device"}
    return kept


def stage_digest(stage: Model, inputs_sha256: str = "", upstream: tuple[str, ...] = ()) -> str:
    """64 hex digits: sha256 of the stage's byte-changing fields, its frozen inputs and the upstream digests."""
    payload = {"fields": digest_fields(stage), "inputs": inputs_sha256, "upstream": sorted(upstream)}
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def load(path: str | Path, overrides: list[str] | None = None) -> Job:
    """Read a job from YAML, apply ``--set a.b=value`` overrides, check everything.

    Raises InputError (no such file) or JobError (one line per mistake: path, value, what was expected, nearest name).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"job {path}: not UTF-8 text; give the path of a job manifest (YAML)") from None
    except OSError as error:
        raise InputError(f"job {path}: {error.strerror or error}; give the path of a job manifest (YAML)") from None
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise JobError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(tree, dict):
        raise JobError(f"{path}: expected a mapping of sections, got {type(tree).__name__}")
    for override in overrides or []:
        _override(tree, override)
    return check(tree)


def check(tree: dict[str, Any]) -> Job:
    """A checked job from a plain tree; raises JobError."""
    try:
        return Job.model_validate(tree)
    except pydantic.ValidationError as error:
        raise JobError([_line(e, tree) for e in error.errors()]) from None


def dump(job: Job) -> str:
    """The resolved job as YAML, every default filled in."""
    return yaml.safe_dump(job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _override(tree: dict[str, Any], override: str) -> None:
    key, sep, raw = override.partition("=")
    if not sep or not key.strip("."):
        raise JobError(f"--set {override}: expected path=value, such as render.samples=8")
    *parents, last = key.split(".")
    node: Any = tree
    for part in parents:
        if isinstance(node, list):
            node = _item(node, part, key)
        else:
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        if not isinstance(node, dict | list):
            raise JobError(f"--set {key}: {part} is a value, not a section")
    try:
        value = read_yaml(raw)
    except yaml.YAMLError:
        value = raw
    if isinstance(node, list):
        _item(node, last, key)
        node[int(last)] = value
    else:
        node[last] = value


def _item(node: list[Any], part: str, key: str) -> Any:
    if not part.isdigit() or int(part) >= len(node):
        raise JobError(f"--set {key}: {part} is not a position in a list of {len(node)}")
    return node[int(part)]


def _line(error: Any, tree: dict[str, Any]) -> str:
    """One line for one pydantic error."""
    loc = [p for p in error["loc"] if p not in SOURCE_NAMES]
    path = ".".join(str(p) for p in loc) or "job"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(loc[-1]), _names_at(loc[:-1]), n=1, cutoff=0.5)
        return f"{path}: unknown key" + (
            f"; did you mean `{near[0]}`?" if near else f"; known here: {', '.join(_names_at(loc[:-1]))}"
        )
    if error["type"] == "missing":
        return f"{path}: missing; {_expected(loc)}".rstrip("; ")
    value = error.get("input")
    shown = json.dumps(value, default=str)
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {shown if len(shown) < 80 else shown[:77] + '...'}: {message[0].lower() + message[1:]}"


def _model_at(loc: list[Any]) -> type[Model] | None:
    """The model class that the path ``loc`` leads into."""
    model: Any = Job
    for part in loc:
        if isinstance(part, int):
            continue
        if model is None or part not in model.model_fields:
            return None
        model = _inner(model.model_fields[part].annotation)
    return model


def _inner(annotation: Any) -> type[Model] | None:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _inner(arg)
        if found is not None:
            return found
    return None


def _names_at(loc: list[Any]) -> list[str]:
    model = _model_at(loc)
    if model in SOURCES:
        return sorted({name for source in SOURCES for name in source.model_fields})
    return list(model.model_fields) if model else []


def _expected(loc: list[Any]) -> str:
    model = _model_at(loc[:-1])
    field = model.model_fields.get(str(loc[-1])) if model else None
    return field.description or "" if field else ""
