"""`torchrun -m training RUN [--stage pretrain | finetune:NAME | evaluate]` -> its stages trained; runs without Ray or
Blender, alone or as one of several workers.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

from manifests.errors import DONE, INTERRUPTED, InputError, MaquetteError


def main(arguments: list[str] | None = None) -> int:
    """Run one stage, or all in their order; returns the exit code of manifests/errors.py."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train the stages of a run folder.")
    parser.add_argument(
        "run", type=Path, help="run folder, or the resolved job.yaml in it (`maquette train JOB --prepare`)"
    )
    parser.add_argument("--stage", help="pretrain, finetune:NAME or evaluate; all of them without")
    parser.add_argument(
        "--fit", action="store_true", help="choose accumulation and checkpointing by the device's memory"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    run = given.run.parent if given.run.suffix in (".yaml", ".yml") else given.run
    try:
        for name in [given.stage] if given.stage else stages(run):
            stage(run, name, given.fit)
    except KeyboardInterrupt:
        logging.getLogger("training").warning("interrupted; the last checkpoint is kept: run again to go on")
        return INTERRUPTED
    except MaquetteError as error:
        logging.getLogger("training").error("maquette: %s", error)
        return error.exit_code
    from training.team import leave

    leave()
    return DONE


def stages(run: Path) -> list[str]:
    """Names of the training stages of ``run``, in order. Raises InputError."""
    from training import settings

    sections = settings.read(run)
    named = [f"finetune:{f.name}" for f in sections["finetune"]]
    return [*(["pretrain"] if sections["pretrain"] else []), *named, *(["evaluate"] if sections["evaluate"] else [])]


def stage(run: Path, name: str, fit: bool = False) -> None:
    """Train or evaluate what ``name`` says. Raises MaquetteError."""
    from training import settings

    sections = settings.read(run)
    finetunes = {f.name: f for f in sections["finetune"]}
    kind, _, which = name.partition(":")
    if kind == "pretrain" and sections["pretrain"]:
        from training.pretrain import pretrain

        pretrain(run, _fitting(sections["pretrain"], fit))
    elif kind == "finetune" and which in finetunes:
        from training.finetune import finetune

        finetune(run, _fitting(finetunes[which], fit))
    elif kind == "evaluate" and sections["evaluate"]:
        # One worker judges; the others have nothing to wait for.
        if os.environ.get("RANK", "0") == "0":
            from training.evaluate import evaluate

            evaluate(run, sections["evaluate"], sections["finetune"])
    else:
        have = stages(run)
        raise InputError(f"--stage {name}: not in {run / 'job.yaml'}; it has {', '.join(have) or 'no training stage'}")


def _fitting(section: Any, fit: bool) -> Any:
    return dataclasses.replace(section, compute=dataclasses.replace(section.compute, fit=True)) if fit else section


if __name__ == "__main__":
    sys.exit(main())
