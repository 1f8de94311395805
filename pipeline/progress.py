"""What happens in a run -> a bar with time left for people, and events.jsonl for machines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)


class Events:
    """Appends one JSON object a line to ``run``/events.jsonl; a line is written whole or not at all."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._path = run / "events.jsonl"

    def emit(self, event: str, **fields: Any) -> None:
        """Record ``event`` with its fields and the wall clock (seconds since 1970)."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str)
        with self._path.open("a") as file:
            file.write(line + "\n")

    def warn(self, message: str, **fields: Any) -> None:
        """A warning: recorded and shown."""
        self.emit("warning", message=message, **fields)
        console.print(f"[yellow]warning[/yellow] {message}", markup=True)


def bar(title: str) -> Progress:
    """A progress bar named ``title``: done of total, elapsed, left. It shows nothing when stderr is not a terminal."""
    return Progress(
        TextColumn(f"[bold]{title:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


def seconds(value: float) -> str:
    """A duration as people say it: 8 s, 3 min 20 s, 2 h 05 min."""
    if value < 60:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def size(n_bytes: float) -> str:
    """Bytes as people say them, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} TB"
