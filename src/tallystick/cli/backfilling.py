"""Options of the commands that make a backfill, and what is told of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tallystick.cli.output import Steps, duration
from tallystick.maintain.backfill import Progress, Told

WORKERS = 2

Workers = Annotated[int, typer.Option(min=1, max=8, help="Chunks that are counted at a time.")]
MaxRowsPerSecond = Annotated[
    int | None,
    typer.Option(min=1, help="Of all workers together, at most. Beside others who write it works a tenth of the time."),
]
ChunkRows = Annotated[int, typer.Option(min=1, max=100_000_000, help="Rows of the source in one transaction, about.")]


def telling(steps: Steps, name: str) -> Told:
    """Tells of a backfill as it goes on."""

    def tell(progress: Progress) -> None:
        if not progress.done:  # nothing yet, or of a table that was never analysed: its rows are not known
            return
        left = f", {duration(progress.left_s)} left" if progress.left_s is not None else ""
        total = f" of {progress.total:,}" if progress.total is not None else ""
        text = f"{progress.done:,}{total} {progress.what}, {progress.rate:,.0f}/s{left}"
        steps.progress(f"{name}: {text}", {"name": name, **asdict(progress), "left_s": progress.left_s})

    return tell
