"""A training stage -> checkpoints and metrics: starts `python -m training` beside the run and passes its exit code
on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from manifests.errors import BAD_JOB, DONE, INTERRUPTED, JobError, MaquetteError, StorageError
from manifests.errors import STORAGE as STORAGE_CODE


def train(run: Path, stage: str) -> None:
    """Run one of pretrain, finetune:NAME, evaluate on ``run`` in its own process.

    The trainer shares no memory with Ray or Blender, as on a machine that has neither. Raises JobError, StorageError,
    KeyboardInterrupt or MaquetteError by the process's exit code; the reason is on the process's own stderr.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(os.cpu_count() or 1)}
    code = subprocess.run(
        [sys.executable, "-m", "training", str(run), "--stage", stage], env=environment, check=False
    ).returncode
    if code == DONE:
        return
    if code in (INTERRUPTED, -2):
        raise KeyboardInterrupt
    kinds = {BAD_JOB: JobError, STORAGE_CODE: StorageError}
    raise kinds.get(code, MaquetteError)(f"{stage}: training ended with exit code {code}; the reason stands above")
