"""`python -m training RUN --stage pretrain | finetune:NAME | evaluate` -> that stage trained; runs without Ray or
Blender.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from manifests.errors import DONE, INTERRUPTED, InputError, MaquetteError


def main(arguments: list[str] | None = None) -> int:
    """Run one stage; returns the exit code of manifests/errors.py."""
    parser = argparse.ArgumentParser(prog="python -m training", description="Train one stage of a run folder.")
    parser.add_argument("run", type=Path, help="run folder with its resolved job.yaml")
    parser.add_argument("--stage", required=True, help="pretrain, finetune:NAME or evaluate")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    try:
        stage(given.run, given.stage)
    except KeyboardInterrupt:
        logging.getLogger("training").warning("interrupted; the last checkpoint is kept: run again to go on")
        return INTERRUPTED
    except MaquetteError as error:
        logging.getLogger("training").error("maquette: %s", error)
        return error.exit_code
    return DONE


def stage(run: Path, name: str) -> None:
    """Train or evaluate what ``name`` says. Raises MaquetteError."""
    from training import settings

    sections = settings.read(run)
    finetunes = {f.name: f for f in sections["finetune"]}
    kind, _, which = name.partition(":")
    if kind == "pretrain" and sections["pretrain"]:
        from training.pretrain import pretrain

        pretrain(run, sections["pretrain"])
    elif kind == "finetune" and which in finetunes:
        from training.finetune import finetune

        finetune(run, finetunes[which])
    elif kind == "evaluate" and sections["evaluate"]:
        from training.evaluate import evaluate

        evaluate(run, sections["evaluate"], sections["finetune"])
    else:
        have = [k for k in ("pretrain", "evaluate") if sections[k]] + [f"finetune:{n}" for n in finetunes]
        raise InputError(f"--stage {name}: not in {run / 'job.yaml'}; it has {', '.join(have) or 'no training stage'}")


if __name__ == "__main__":
    sys.exit(main())
