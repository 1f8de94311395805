"""A checkpoint of a run -> a folder that others can use: ONNX, safetensors, a Hugging Face config, and a card with its data's rights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from manifests.errors import InputError, JobError, StorageError

FORMATS = ("onnx", "safetensors", "huggingface")
# What each task's map is, for the card. Frames: manifests/frames.py.
OUTPUTS = {
    "depth": "(B, 1, h, w) relative depth: larger is farther; known up to scale and shift for the loss `affine`, up to scale for "
    "`silog`",
    "normal": "(B, 3, h, w) unit normals in the OpenCV camera frame (x right, y down, z forward)",
    "foreground": "(B, 1, h, w) soft coverage of people, 0 to 1",
    "parts": "(B, 29, h, w) shares of Sapiens2's 29 classes of parts",
    "parts28": "(B, 28, h, w) shares of Sapiens v1's 28 classes of parts",
    **dict.fromkeys(
        ("pose17", "pose133", "pose308"), "(B, K, h / 4, w / 4) heatmaps of keypoints; the best place of each is theirs"
    ),
    "pointmap": "(B, 4, h, w) points in metres in the OpenCV camera frame, and the scale they were canonical by",
    "albedo": "(B, 3, h, w) sRGB base colour without light, 0 to 1",
}
INPUT = (
    "Pictures of one person, cut with a fifth of room around and stretched to {height} x {width} (height x width), RGB."
)


def export_model(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="model.safetensors of a fine-tune or a pre-training")
    ],
    out: Annotated[Path, typer.Option(help="the folder to write")],
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, safetensors or huggingface, repeated; default: all that suit"),
    ] = None,
    run: Annotated[Path | None, typer.Option(help="run folder it is from; default: the one it lies in")] = None,
    licence: Annotated[str | None, typer.Option(help="SPDX id under which you pass it on; default: `other`")] = None,
) -> None:
    """Write a model for others: ONNX checked against torch, safetensors, a Hugging Face folder, a card with the data's rights."""
    from pipeline import model_card
    from training import checkpoint as files

    for name in formats or ():
        if name not in FORMATS:
            raise InputError(f"--format {name}: expected {', '.join(FORMATS)}")
    if checkpoint.is_dir():
        checkpoint = checkpoint / "model.safetensors"
    if not checkpoint.is_file():
        raise InputError(
            f"checkpoint {checkpoint}: no such file; give a run's pretrain or finetune/NAME/model.safetensors"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(f"--out {out}: not empty; give a new folder")
    run = run or model_card.run_of(checkpoint)
    state = files.state_of(checkpoint)
    fields = state.get("digest", {}).get("fields", {})
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write = dense if "task" in fields else autoencoder
        about = write(checkpoint, fields, part, formats)
        about["licence"] = licence
        (part / "job.yaml").write_text((run / "job.yaml").read_text())
        (part / "rights.json").write_text(json.dumps(model_card.rights_of(run, checkpoint), indent=1))
        (part / "README.md").write_text(model_card.card(run, checkpoint, about))
        if out.exists():
            out.rmdir()
        os.replace(part, out)
    except OSError as error:
        raise StorageError(f"--out {out}: {error.strerror}; free space or choose another folder") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for name, what in about["files"].items():
        typer.echo(f"{out / name}: {what}")


def dense(checkpoint: Path, fields: dict[str, Any], folder: Path, formats: list[str] | None) -> dict[str, Any]:
    """Files of a fine-tuned model in ``folder``; what its card must say."""
    from pipeline import hub_model
    from training.heads import OneTask
    from training.portable import INPUT as NAME
    from training.portable import write_onnx
    from training.predictor import Predictor
    from training.tasks import objective

    wanted = formats or list(FORMATS)
    model = Predictor(checkpoint, "cpu")
    height, width = model.size
    told: dict[str, str] = {}
    for task in model.tasks if "onnx" in wanted else ():
        reading = objective(task, model.settings.loss if task == model.settings.task else None).read
        one = OneTask(model.model, task) if model.settings.also else model.model
        name = "model.onnx" if task == model.settings.task else f"model_{task}.onnx"
        worst = write_onnx(folder / name, one, reading, model.size, task)
        told[name] = (
            f"{task} of any batch of `{NAME}` (B, 3, {height}, {width}) float32, 0 to 255; equals torch within {worst:.1e}"
        )
    theirs = hub_model.sapiens2(model.model, height, width) if "huggingface" in wanted else None
    if theirs is not None:
        config, tensors = theirs
        _save(folder / "model.safetensors", tensors, {})
        _json(folder / "config.json", config)
        _json(folder / "preprocessor_config.json", hub_model.preprocessor(height, width))
        told["model.safetensors"] = "weights under Sapiens2's names"
        kind = config["architectures"][0]
        if kind == hub_model.ENCODER:
            told["config.json"] = "`transformers.AutoModel` opens the encoder"
        else:
            told["config.json"] = f"`transformers.{kind}` opens the whole"
            told["encoder"] = "the encoder alone: `AutoModel.from_pretrained(FOLDER, subfolder='encoder')`"
            (folder / "encoder").mkdir()
            alone = {k.removeprefix("backbone."): v for k, v in tensors.items() if k.startswith("backbone.")}
            _save(folder / "encoder" / "model.safetensors", alone, {})
            headless = {k: v for k, v in config.items() if k not in ("head_config", "num_labels")}
            _json(folder / "encoder" / "config.json", headless | {"architectures": [hub_model.ENCODER]})
    elif "safetensors" in wanted or "huggingface" in wanted:
        told["model.safetensors"] = (
            "weights under this trainer's names; `training.predictor.Predictor` reads a run's own file"
        )
        plain = {k: v.contiguous() for k, v in model.model.state_dict().items()}
        _save(folder / "model.safetensors", plain, {"settings": json.dumps(fields)})
    if theirs is None and "huggingface" in wanted:
        told["config.json"] = (
            "settings; transformers has no such architecture, so that AutoModel does not open it: use the ONNX file"
        )
        _json(folder / "config.json", {"model_type": "maquette_dense", **_shape(fields)})
        _json(folder / "preprocessor_config.json", hub_model.preprocessor(height, width))
    return {
        "title": f"{model.settings.name} ({model.settings.model})",
        "task": model.settings.task,
        "input": INPUT.format(height=height, width=width),
        "output": " ".join(f"Output of {t}: {OUTPUTS[t]}." for t in model.tasks),
        "files": told,
        "parameters": sum(p.numel() for p in model.model.parameters()),
    }


def autoencoder(checkpoint: Path, fields: dict[str, Any], folder: Path, formats: list[str] | None) -> dict[str, Any]:
    """Files of a pre-trained autoencoder in ``folder``; what its card must say. Raises JobError."""
    from pipeline import hub_model
    from training import keymaps_modern, official
    from training.backbones import SIZES

    if not fields:
        raise InputError(f"checkpoint {checkpoint}: its header says nothing; give a file that this trainer wrote")
    if "onnx" in (formats or ()):
        raise JobError("--format onnx: a masked autoencoder has no map to give; fine-tune it first")
    size = SIZES[fields["model"]]
    config = hub_model.sapiens2_config(size, fields["height"], fields["width"])
    if config is not None:
        config["architectures"] = [hub_model.ENCODER]
        tensors = official.export(checkpoint, keymaps_modern.SAPIENS2)
    else:
        config, tensors = hub_model.vitmae(checkpoint, fields)
    _save(folder / "model.safetensors", tensors, {})
    kind = config["model_type"]
    told = {"model.safetensors": f"weights under the names that transformers' {kind} knows"}
    if formats is None or "huggingface" in formats:
        _json(folder / "config.json", config)
        _json(folder / "preprocessor_config.json", hub_model.preprocessor(fields["height"], fields["width"]))
        square = fields["height"] == fields["width"]
        whole = ", `AutoModelForPreTraining` the whole" if square else " (its decoder knows square pictures alone)"
        told["config.json"] = "`transformers.AutoModel` opens the encoder" + (whole if kind == "vit_mae" else "")
    return {
        "title": f"masked autoencoder ({fields['model']})",
        "task": "feature-extraction",
        "input": f"Pictures of people, stretched to {fields['height']} x {fields['width']} (height x width), RGB.",
        "output": "Output: a feature for each patch, the class token first. `mask_ratio=0` looks at all patches.",
        "files": told,
        "parameters": sum(t.numel() for t in tensors.values()),
    }


def _shape(fields: dict[str, Any]) -> dict[str, Any]:
    """What of the settings describes the model; the rest was of its training."""
    dropped = {"data", "weights", "optim", "compute", "augment", "seed", "layer_decay", "init"}
    return {k: v for k, v in fields.items() if k not in dropped}


def _save(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata={"format": "pt"} | metadata)


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


COMMANDS = (export_model,)
