"""Health: whether somebody has to look at an installation now. Cheap enough to be asked every few seconds.

`doctor` looks for causes, and also for what will become wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from sqlalchemy import Engine

from tallystick.maintain.checks.capture import of_capture
from tallystick.maintain.checks.finding import LONG_BACKLOG, Finding
from tallystick.maintain.status import AggregateStatus
from tallystick.store import aggregates, events, schedules, workers
from tallystick.store.connection import transaction
from tallystick.store.workers import WorkerSeen

LATE = timedelta(minutes=5)
"""What has waited for a worker for so long has waited too long."""


def problems(engine: Engine, schema: str, found: Iterable[AggregateStatus]) -> list[Finding]:
    """What is wrong now, each with the command that mends it or tells more; none if all is well.

    Workers are missed only where there were some that did not end by themselves: one may fold by cron instead.
    """
    by_name = {each.name: each for each in found}
    with transaction(engine, snapshot=True, read_only=True) as cursor:
        seen = workers.every(cursor, schema)
        now = schedules.now(cursor)
        late = [each for each in schedules.every(cursor, schema) if now - each.due_at > LATE]
        drifting = events.drifting(cursor, schema)
        installed = [each for each in aggregates.every(cursor, schema) if each.source is not None]
        captured = [each for each in installed if each.is_complete or aggregates.is_captured(cursor, schema, each.name)]
        findings = [finding for each in captured for finding in of_capture(cursor, schema, each)]
    findings += [finding for each in by_name.values() for finding in _aggregate(each)]
    for name, event in drifting.items():
        said = f"a verification at {event.at:%Y-%m-%d %H:%M} found drift"
        is_counter = name in by_name and by_name[name].kind == "counter"
        findings.append(Finding("error", name, said, f"tally {'backfill' if is_counter else 'repair'} {name}"))
    findings += _workers(seen)
    for each in late:
        what = f"was due at {each.due_at:%Y-%m-%d %H:%M} and is not done"
        findings.append(Finding("error", f"schedule {each.name}", what, "tally worker, whose log tells why"))
    return findings


def seen_workers(engine: Engine, schema: str) -> list[WorkerSeen]:
    """All workers by their start, lost ones among them."""
    with transaction(engine, read_only=True) as cursor:
        return workers.every(cursor, schema)


def _aggregate(each: AggregateStatus) -> Iterator[Finding]:
    if each.phase == "kept" and each.uncounted:
        yield Finding("error", each.name, f"readers are served by the source: {each.uncounted[0]}", "tally doctor")
    if each.backlog > LONG_BACKLOG:
        yield Finding("error", each.name, f"{each.backlog:,} rows wait to be folded", f"tally fold {each.name}")
    elif each.age_s is not None and each.age_s > LATE.total_seconds():
        yield Finding(
            "error", each.name, f"rows have waited to be folded for {each.age_s:,.0f} s", f"tally fold {each.name}"
        )


def _workers(seen: Sequence[WorkerSeen]) -> Iterator[Finding]:
    if seen and not any(each.is_alive for each in seen):
        last = min(seen, key=lambda each: each.seen_s)
        yield Finding(
            "error", "workers", f"the last one, pid {last.pid} on {last.host}, was not seen for {last.seen_s:,.0f} s",
            "tally worker",
        )  # fmt: skip
