"""Photographs or a video -> people found, looked at by fine-tuned models, and pasted back into the picture's own pixels.

Legend: (H, W) the picture, (h, w) a person's cut, P people.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curation.detectors import Box, PersonDetector
from manifests.errors import DONE, FAILURES, InputError, PhotoError
from pipeline import crops, inputs, lens, metric, predict_write, progress
from pipeline.crops import Crop
from pipeline.predict_write import Looks, Prediction

if TYPE_CHECKING:
    from training.predictor import Predictor

# Pictures that are held at once, and their pixels: a batch for the models from several small photographs.
HELD, HELD_PIXELS = 16, 48_000_000
# A matte above this is a person's pixel to everything that knows no halves.
SOLID = 0.5


@dataclasses.dataclass(frozen=True)
class Wanted:
    """How to predict: ``score``: least score of a box; ``focal_px``: of the camera, None = EXIF or assumed."""

    score: float = 0.5
    batch: int = 8
    margin: float = crops.MARGIN
    max_pixels: int = 50_000_000
    focal_px: float | None = None
    size: metric.Size = dataclasses.field(default_factory=metric.Size)
    looks: Looks = dataclasses.field(default_factory=Looks)


class Eye:
    """A detector and models, held in memory, that turn pictures into predictions."""

    def __init__(self, models: Sequence[Predictor], detector: PersonDetector | None, wanted: Wanted) -> None:
        self.models, self.detector, self.wanted = models, detector, wanted
        tasks = self.tasks = [t for m in models for t in m.tasks]
        if len(set(tasks)) != len(tasks):
            raise InputError(f"checkpoints: {', '.join(sorted(tasks))}: one of each task; leave out the others")

    def see(self, pictures: Sequence[np.ndarray], lenses: Sequence[tuple[np.ndarray, str]]) -> list[Prediction | str]:
        """A prediction of each picture (H, W, 3) uint8 with its (K, how it is known), or why there is none."""
        boxes = self._people(pictures)
        found = [[crops.around(b.xyxy, self.models[0].size, self.wanted.margin) for b in some] for some in boxes]
        cuts = [crops.cut(p, c) for p, some in zip(pictures, found) for c in some]
        said = {t: iter(each) for m in self.models for t, each in m.predict(cuts, self.wanted.batch).items()}
        out: list[Prediction | str] = []
        for picture, some, mine, (K, how) in zip(pictures, boxes, found, lenses):
            if not some:
                out.append(f"no_person: nobody found with a score of {self.wanted.score:g} or more")
                continue
            maps = {task: [next(each) for _ in mine] for task, each in said.items()}
            out.append(self._joined(picture, some, mine, maps, K, how))
        return out

    def _people(self, pictures: Sequence[np.ndarray]) -> list[list[Box]]:
        if self.detector is None:
            return [[Box((0.0, 0.0, float(p.shape[1]), float(p.shape[0])), None, None)] for p in pictures]
        least = self.wanted.score
        return [[b for b in some if b.score is None or b.score >= least] for some in self.detector.detect(pictures)]

    def _joined(
        self, picture: np.ndarray, boxes: list[Box], mine: list[Crop], maps: dict[str, list[np.ndarray]],
        K: np.ndarray, how: str,
    ) -> Prediction:  # fmt: skip
        size = (picture.shape[0], picture.shape[1])
        owner = crops.owners(mine, size)
        joined = {t: crops.pasted(each, mine, owner) for t, each in maps.items() if t not in (*RELATIVE, *POSES)}
        alpha = joined["foreground"][..., 0] if "foreground" in joined else None
        inside = (alpha > SOLID) & (owner > 0) if alpha is not None else _boxed(boxes, size)
        made = Prediction(picture, boxes, np.where(inside, owner, 0).astype(np.uint8), K, how, joined)
        for task in POSES & maps.keys():
            made.poses[task] = np.stack([p + np.array([c.x0, c.y0, 0]) for p, c in zip(maps[task], mine)])
        if "pointmap" in joined:
            # Its z is metric by itself; x and y follow from it and the camera, where every map has its pixel.
            joined["pointmap"] *= inside[..., None]
            joined.setdefault("depth", np.maximum(joined["pointmap"][..., 2:3], 0))
            made.scales = ["metres as the point map has them"] * len(boxes)
        for task in RELATIVE & maps.keys():
            joined[task], made.scales = self._metres(made, mine, maps, task)
        return made

    def _metres(
        self, made: Prediction, mine: list[Crop], maps: dict[str, list[np.ndarray]], task: str
    ) -> tuple[np.ndarray, list[str]]:
        """(H, W, 1) metres, 0 outside people, and what each person's scale rests on."""
        size, out, said = (made.person.shape[0], made.person.shape[1]), [], []
        for i, crop in enumerate(mine):
            inside = np.zeros(crop.shape, bool)
            inside[crop.own(size)] = made.person[crop.inside(size)] == i + 1
            scaled = metric.metres(
                maps[task][i][..., 0], inside, made.boxes[i].xyxy, size, crop.intrinsics(made.K), self.wanted.size,
                maps["normal"][i] if "normal" in maps else None,
            )  # fmt: skip
            out.append(scaled.depth[..., None])
            said.append(scaled.how)
        return crops.pasted(out, mine, made.person), said


def predict(source: Path, out: Path, eye: Eye, again: str) -> int:
    """Predict every photograph and video of ``source`` into ``out``/NAME/; returns the exit code: 0 done, 1 where some could
    not be used. ``again``: a digest of models and settings; what was done under the same is not done again.

    Raises InputError, StorageError.
    """
    todo, done = [], 0
    for item in inputs.find(source):
        if predict_write.finished(out / item.name, again, item):
            done += 1
        else:
            todo.append(item)
    failed = 0
    with progress.bar("predict") as bar:
        task = bar.add_task("predict", total=done + len(todo), completed=done, note="")
        for name, why in _each(todo, out, eye, again, lambda note: bar.update(task, note=note)):
            bar.update(task, advance=1, note=name)
            if why:
                failed += 1
                progress.console.print(f"  {name}: {why}", markup=False, soft_wrap=True)
    told = [f"{len(todo) - failed} predicted"] + ([f"{done} were done before"] if done else [])
    told += [f"{failed} could not be used"] if failed else []
    progress.console.print(f"  {', '.join(told)}: {out}", soft_wrap=True)
    return FAILURES if failed else DONE


def _each(
    todo: Sequence[inputs.Input], out: Path, eye: Eye, again: str, tell: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """(name, why not or "") of each input, as it is done."""
    held: list[tuple[inputs.Input, np.ndarray, tuple[np.ndarray, str]]] = []
    for item in todo:
        try:
            if item.video:
                _film(item, out / item.name, eye, again, tell)
                yield item.name, ""
                continue
            rgb, data = inputs.read(item, eye.wanted.max_pixels)
        except PhotoError as error:
            yield item.name, str(error)
            continue
        held.append((item, rgb, lens.intrinsics(data, rgb.shape[1], rgb.shape[0], eye.wanted.focal_px)))
        if len(held) >= HELD or sum(p.size for _, p, _ in held) > 3 * HELD_PIXELS:
            yield from _photographs(held, out, eye, again)
            held = []
    yield from _photographs(held, out, eye, again)


def _photographs(
    held: list[tuple[inputs.Input, np.ndarray, tuple[np.ndarray, str]]], out: Path, eye: Eye, again: str
) -> Iterator[tuple[str, str]]:
    for (item, _, _), made in zip(held, eye.see([p for _, p, _ in held], [k for _, _, k in held])):
        if isinstance(made, Prediction):
            with predict_write.landing(out / item.name) as folder:
                predict_write.write(folder, made, eye.wanted.looks, {"settings": again, "input": item.mark()})
        yield item.name, "" if isinstance(made, Prediction) else made


def _film(item: inputs.Input, target: Path, eye: Eye, again: str, tell: Callable[[str], None]) -> None:
    """Each frame's maps, and a film of the overlays; a frame without people has no maps. Raises PhotoError."""
    video = inputs.Video(item, eye.wanted.max_pixels)
    K, how = lens.intrinsics(None, video.size[1], video.size[0], eye.wanted.focal_px)
    with predict_write.landing(target) as folder:
        film = predict_write.Film(folder / "overlay.mp4", video.rate)
        number, people = 0, 0
        for frames in _groups(video, eye.wanted.batch):
            for frame, made in zip(frames, eye.see(frames, [(K, how)] * len(frames))):
                found = made if isinstance(made, Prediction) else None
                if found is not None:
                    people += 1
                    predict_write.write_maps(folder / f"{number:06d}.npz", found)
                film.add(predict_write.overlay(frame, found, eye.tasks))
                number += 1
            tell(f"{item.name} {number}" + (f" of {video.frames}" if video.frames else "") + " frames")
        film.close()
        if not people:
            raise PhotoError(
                "no_person", f"nobody found in {number} frames with a score of {eye.wanted.score:g} or more"
            )
        counted = {"frames": number, "frames_with_people": people, "frames_per_s": video.rate}
        seen = {"camera": how, "K": K.tolist(), "settings": again, "input": item.mark()}
        predict_write.write_result(folder, counted | seen)


def _groups(video: inputs.Video, count: int) -> Iterator[list[np.ndarray]]:
    some: list[np.ndarray] = []
    for frame in video:
        some.append(frame)
        if len(some) == count:
            yield some
            some = []
    if some:
        yield some


def _boxed(boxes: Sequence[Box], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: inside some box; without a matte nothing says more."""
    inside = np.zeros(size, bool)
    for box in boxes:
        x0, y0, x1, y1 = (round(v) for v in box.xyxy)
        inside[y0:y1, x0:x1] = True
    return inside


POSES = {"pose17", "pose133", "pose308"}
# Known up to scale and shift: made metric one person at a time.
RELATIVE = {"depth"}
