"""What a user points at -> photographs and videos by name, and pictures out of them that are safe to work on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from manifests import photo
from manifests.errors import InputError, PhotoError

# Container -> what its files hold from the given byte on. FFmpeg would also take playlists, which name other files and hosts.
CONTAINERS = (
    (4, b"ftyp"), (4, b"moov"), (4, b"mdat"), (4, b"wide"), (4, b"free"),
    (0, b"\x1aE\xdf\xa3"), (8, b"AVI "),
)  # fmt: skip
VIDEOS = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm")
SMALLEST_PX = 16


@dataclasses.dataclass(frozen=True)
class Input:
    """``name``: its path below the folder that was given; unique, and what its results are filed under."""

    name: str
    path: Path

    @property
    def video(self) -> bool:
        """Whether it is read as one, by its suffix."""
        return self.path.suffix.lower() in VIDEOS

    def mark(self) -> str:
        """What changes when the file does: 64 hex digits of a photograph's bytes, size and time of a video."""
        if self.video:
            status = self.path.stat()
            return f"{status.st_size}:{status.st_mtime_ns}"
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def find(path: Path) -> list[Input]:
    """The file itself, or every file below a folder, in order; hidden ones are left out. Raises InputError."""
    if path.is_file():
        return [Input(path.name, path)]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder; give a photograph, a folder of them, or a video")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    found = [Input(p.relative_to(path).as_posix(), p) for p in files]
    found = [f for f in found if not any(part.startswith(".") for part in Path(f.name).parts)]
    if not found:
        raise InputError(f"{path}: an empty folder; give one with photographs or videos")
    return found


def read(item: Input, max_pixels: int) -> tuple[np.ndarray, bytes]:
    """(H, W, 3) uint8 sRGB, upright, and the file's bytes. Raises PhotoError."""
    try:
        if item.path.stat().st_size > photo.MAX_BYTES:
            raise PhotoError("too_large", f"{item.path.stat().st_size} bytes, {photo.MAX_BYTES} allowed")
        data = item.path.read_bytes()
    except OSError as error:
        raise PhotoError("unreadable", str(error.strerror)) from None
    rgb, _ = photo.decode(data, max_pixels)
    _large_enough(rgb.shape[0], rgb.shape[1])
    return rgb, data


class Video:
    """A video that can be gone through once: ``frames`` (0 = it does not say), ``rate`` frames/s, ``size`` (H, W) upright."""

    def __init__(self, item: Input, max_pixels: int) -> None:
        """Raises PhotoError where it is not a video, or one whose frames are too large."""
        with item.path.open("rb") as file:
            head = file.read(16)
        if not any(head[at:].startswith(mark) for at, mark in CONTAINERS):
            raise PhotoError("format", "not a video (expected MP4, MOV, AVI, MKV or WebM)")
        # Nothing inside a file may make FFmpeg open a connection.
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "protocol_whitelist;file"
        self._capture = cv2.VideoCapture(str(item.path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise PhotoError("corrupt", "the video does not open; no codec here reads it, or it is damaged")
        width, height = (int(self._capture.get(k)) for k in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > max_pixels:
            raise PhotoError("too_large", f"{width}x{height} pixels, {max_pixels} allowed")
        _large_enough(height, width)
        self.size = (height, width)
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.rate = float(self._capture.get(cv2.CAP_PROP_FPS)) or 25.0

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 sRGB. Raises PhotoError when there is none."""
        count = 0
        while True:
            good, frame = self._capture.read()
            if not good:
                break
            count += 1
            yield np.ascontiguousarray(frame[..., ::-1])
        self._capture.release()
        if not count:
            raise PhotoError("corrupt", "no frame of the video decodes")


def _large_enough(height: int, width: int) -> None:
    if min(height, width) < SMALLEST_PX:
        raise PhotoError("too_small", f"{width}x{height} pixels, {SMALLEST_PX} at least")
