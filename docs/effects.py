"""docs/relight.jpg, docs/beside.jpg and docs/background.jpg, with figures against the truth: `python docs/effects.py RUN [PHOTO]`.

RUN: a run with rendered people (`extras: [albedo]`) and fine-tunes of foreground, normal and depth, or one of all three. Rendered
people come with their true maps; a photograph (default: the astronaut of scikit-image, public domain) goes through `maquette predict`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from manifests import view
from manifests.dataset import Dataset
from manifests.frames import camera_rays, point_map
from manifests.sample import RenderedSample
from pipeline import effects
from training.predictor import described

DOCS = Path(__file__).parent
LIGHT = np.array([-1.0, -0.6, -0.5])
TURN_DEG = 12.0
ROWS = 384


def chosen(run: Path) -> RenderedSample:
    """The rendered person who is seen largest, of those who face the camera."""
    dataset = Dataset(run / "render").filter(framing="upper")
    seen = (dataset.sample(i) for i in range(min(len(dataset), 40)))
    return max((s for s in seen if s.people and s.people[0].visibility[0] == 2), key=lambda s: np.count_nonzero(s.mask))


def wall(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) a warm wall that darkens downwards: a background whose every pixel is known."""
    down = np.linspace(1.0, 0.55, size[0])[:, None, None]
    return np.round(np.broadcast_to(down * np.array([236, 205, 170]), (*size, 3))).astype(np.uint8)


def relight_error(s: RenderedSample) -> tuple[float, float]:
    """Mean error of relighting a picture of known light on the person's own shape and colours, and of leaving it: sRGB levels."""
    assert s.albedo is not None
    inside, alpha = s.mask > 0, s.alpha / 255
    colours = effects.linear(s.albedo)
    before = effects.srgb(colours * effects.lambert(s.normal, np.array([1.0, -0.4, -0.6]))[..., None])
    truth = colours * effects.lambert(s.normal, LIGHT)[..., None]
    truth *= effects.linear(before)[inside].mean() / truth[inside].mean()
    made = effects.relit(before, s.normal, alpha, LIGHT)
    return tuple(float(np.abs(p.astype(float) - effects.srgb(truth))[inside].mean()) for p in (made, before))  # type: ignore[return-value]


def beside_error(s: RenderedSample) -> tuple[float, float]:
    """Share of the person's points that stand within 3 px of where the turned camera sees them, and the median distance in px;
    those that others cover from there count as wrong.
    """
    inside = s.mask > 0
    pivot = point_map(s.depth, s.K)[inside].mean(axis=0)
    world = effects.turned(pivot, TURN_DEG)
    code = np.zeros_like(s.image)
    # Each pixel's colour says where it was; after the turn it must stand where its own 3-D point projects.
    ys, xs = np.mgrid[0 : inside.shape[0], 0 : inside.shape[1]]
    code[..., 0], code[..., 1] = 40 + 200 * xs / inside.shape[1], 40 + 200 * ys / inside.shape[0]
    made = effects.from_beside(code, s.depth, inside.astype(np.float32), s.K, world)
    points = (camera_rays(s.K, *inside.shape[::-1]) * s.depth[..., None])[inside] @ world[:3, :3].T + world[:3, 3]
    uv = points @ s.K.T
    at = np.floor(uv[:, :2] / uv[:, 2:]).astype(int)
    fits = (at >= 0).all(axis=1) & (at < inside.shape[::-1]).all(axis=1)
    got = made[at[fits, 1], at[fits, 0]].astype(float)
    wanted = code[inside][fits].astype(float)
    off = np.abs(got - wanted)[:, :2] / 200 * np.array(inside.shape[::-1])
    return float((off.max(axis=1) < 3).mean()), float(np.median(off.max(axis=1)))


def background_error(s: RenderedSample) -> tuple[float, float]:
    """Mean error in soft pixels of a composite before a new wall, with colours estimated and taken as they are: sRGB levels."""
    # The person's own colours carried on outwards, so that every mixture's parts are known.
    front = effects.linear(effects.filled(s.image, (s.alpha < 255).astype(np.uint8)))
    alpha = (s.alpha / 255)[..., None]
    old, new = effects.linear(wall(s.mask.shape)[:, :, ::-1].copy()) * 0.3, effects.linear(wall(s.mask.shape))
    mixed = effects.srgb(alpha * front + (1 - alpha) * old)
    truth = effects.srgb(alpha * front + (1 - alpha) * new)
    made = effects.before(mixed, alpha[..., 0], wall(s.mask.shape))
    plain = effects.srgb(alpha * effects.linear(mixed) + (1 - alpha) * new)
    soft = (alpha[..., 0] > 0.05) & (alpha[..., 0] < 0.95)
    return tuple(float(np.abs(p.astype(float) - truth)[soft].mean()) for p in (made, plain))  # type: ignore[return-value]


def rendered(s: RenderedSample) -> dict[str, list[np.ndarray]]:
    """Name of the picture -> strips of the rendered person under true maps."""
    alpha, inside = s.alpha / 255, s.mask > 0
    pivot = point_map(s.depth, s.K)[inside].mean(axis=0)
    return {
        "relight": [s.image, effects.relit(s.image, s.normal, alpha, LIGHT, s.albedo),
                    effects.relit(s.image, s.normal, alpha, -LIGHT * [1, -1, -1], s.albedo)],
        "beside": [effects.from_beside(s.image, s.depth, alpha * inside, s.K, effects.turned(pivot, d))
                   for d in (-TURN_DEG, 0.0, TURN_DEG)],
        "background": [s.image, np.repeat(s.alpha[..., None], 3, axis=2), effects.before(s.image, alpha, wall(s.mask.shape))],
    }  # fmt: skip


def photographed(run: Path, photo: Path, scratch: Path) -> dict[str, list[np.ndarray]]:
    """The same of a photograph under predicted maps, as far as ``run`` has the models."""
    models = [described(p)[0] for p in (run / "finetune").glob("*/model.safetensors")]
    have = {task for m in models for task in (m.task, *m.also)}
    behind = scratch / "wall.png"
    Image.fromarray(wall((600, 600))).save(behind)
    flags = [["--background", str(behind)]]
    if "normal" in have:
        flags = [[*flags[0], "--relight=" + ",".join(f"{v:g}" for v in d)] for d in (LIGHT, -LIGHT * [1, -1, -1])]
    if "depth" in have:
        flags[0] += ["--turn", str(TURN_DEG)]
    found = []
    for i, more in enumerate(flags):
        command = [sys.executable, "-m", "pipeline.cli", "predict", str(run), str(photo), "--detector", "none", *more]
        subprocess.run([*command, "--out", str(scratch / str(i))], cwd=DOCS.parent, check=True)
        folder = scratch / str(i) / photo.name
        found.append({p.stem: np.asarray(Image.open(p)) for p in (*folder.glob("*.jpg"), folder / "foreground.png")})
    picture = np.asarray(Image.open(photo).convert("RGB"))
    alpha = np.repeat(found[0]["foreground"][..., None], 3, axis=2)
    strips = {"background": [picture, alpha, found[0]["background"]]}
    if "normal" in have:
        strips["relight"] = [picture, found[0]["relit"], found[1]["relit"]]
    if "depth" in have:
        strips["beside"] = np.split(found[0]["beside"], 3, axis=1)
    return strips


def astronaut(folder: Path) -> Path:
    """Eileen Collins, NASA, public domain; it arrives with scikit-image."""
    from skimage import data

    path = folder / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


def main(run: Path, photo: Path | None) -> None:
    person = chosen(run)
    for name, measure in (("relight", relight_error), ("background", background_error)):
        mine, plain = measure(person)
        sys.stdout.write(f"{name}: off the truth by {mine:.2f} of 255, untreated {plain:.2f}\n")
    share, off = beside_error(person)
    sys.stdout.write(f"beside: {100 * share:.1f} % of the points within 3 px of their place, median {off:.2f} px\n")
    with tempfile.TemporaryDirectory() as scratch:
        strips = rendered(person)
        for name, more in photographed(run, photo or astronaut(Path(scratch)), Path(scratch)).items():
            strips[name] += more
    for name, pictures in strips.items():
        small = [view.thumbnail(np.ascontiguousarray(p), ROWS) for p in pictures]
        Image.fromarray(np.concatenate(small, axis=1)).save(DOCS / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
