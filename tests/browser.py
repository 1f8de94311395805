"""An address and a window -> the page as headless Chromium has it once its scripts have run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.doctor import BROWSERS

FLAGS = (
    "headless",
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "hide-scrollbars",
)


def dom(url: str, profile: Path, *more: str, width: int = 1280, height: int = 2000) -> str:
    """HTML of ``url`` in a window of ``width`` by ``height`` px. ``profile``: folder for the browser's own files. ``more``:
    flags without dashes. Skips the test where there is no Chromium.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on PATH; apt-get install chromium")
    flags = [f"--{f}" for f in (*FLAGS, *more, f"user-data-dir={profile}", f"window-size={width},{height}", "dump-dom")]
    done = subprocess.run([browser, *flags, url], capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr[-2000:]
    return done.stdout
