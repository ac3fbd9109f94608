"""Verify part by part: each part is exact in one snapshot of its own, and none is held for long.

For tables that are too large for one query, and for workers that verify a little all the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import Engine

from tallystick.maintain.parts import Places, Position
from tallystick.maintain.patience import patiently
from tallystick.maintain.verify import SHOWN, VerifyReport, comparable, compare
from tallystick.store import audit, events
from tallystick.store.audit import Pass, Progress
from tallystick.store.connection import spell_plainly, transaction

STEP_S = 1.0
"""Seconds that a part is to take, about; its size follows."""
MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class AuditStep:
    """One part of a pass. `report` is of it alone; `groups` and `drifted` are of the whole pass so far.

    `is_last`: the pass is done, and the next step begins another one. `is_stored` is False if another session went
    through the same part meanwhile; then that one has recorded it.
    """

    report: VerifyReport
    groups: int
    drifted: int
    is_last: bool
    is_stored: bool = True


def audit_step(
    engine: Engine, schema: str, name: str, *, budget_s: float = STEP_S, which: Pass = "worker"
) -> AuditStep:
    """Verify the next part of an aggregate, and record a drift as an event.

    Waits for nobody, and nobody for it. Where nothing is kept that could be compared, `report.status` tells so.

    Args:
        budget_s: seconds that a part is to take; the next one is made larger or smaller by this one.
        which: pass that it goes on with: the endless one of the workers, or one that was asked for.
    Raises:
        NotInstalled: there is no such aggregate.
        SourceLocked: somebody empties the source or writes it anew.
    """
    while True:
        try:
            return _step(engine, schema, name, budget_s, which)
        except _Mended:
            continue


class _Mended(Exception):
    """Others have mended the aggregate since a part of it was compared."""


def _step(engine: Engine, schema: str, name: str, budget_s: float, which: Pass) -> AuditStep:
    with comparable(engine, schema, name, read_only=True, at_once=True) as (cursor, found):
        spell_plainly(cursor)
        before = audit.progress(cursor, schema, name, which)
        part = Places(cursor, schema, found).part(cursor, before.position, before.size)
        report = compare(cursor, schema, found, part)
        since = events.last_of_drift(cursor, schema, name) if report.drifted else 0
    if report.status not in ("exact", "drift"):
        return AuditStep(report, 0, 0, is_last=True)
    after = _after(before, report, part.upto, budget_s)
    with transaction(engine) as cursor:
        is_stored = audit.advance(cursor, schema, name, which, before, after)
        if is_stored and report.drifted:
            if events.is_contradicted(cursor, schema, name, since, drifts=True):
                raise _Mended
            events.record(cursor, schema, "drift", name, drifted=report.drifted, **{report.unit: report.groups})
    return AuditStep(report, after.groups, after.drifted, after.position is None, is_stored)


def verify_rolling(
    engine: Engine, schema: str, name: str, *, progress: Callable[[AuditStep], None] | None = None
) -> VerifyReport:
    """Verify an aggregate part by part, going on where a pass that was interrupted was left.

    Args:
        progress: is told of each part.
    Returns:
        Groups and drifts of the whole pass; the first ten of this call.
    Raises:
        NotInstalled: there is no such aggregate.
        InstallError: others kept us out of the source all the time.
    """
    first: list[VerifyReport] = []
    while True:
        step = patiently(engine, audit_step, engine, schema, name, which="asked")
        first.append(step.report)
        if progress is not None:
            progress(step)
        if step.is_last:
            break
    drifts = tuple(drift for report in first for drift in report.first)[:SHOWN]
    status = step.report.status if step.report.status not in ("exact", "drift") else _status(step.drifted)
    elapsed_s = sum(report.elapsed_s for report in first)
    return replace(
        step.report, groups=step.groups, drifted=step.drifted, first=drifts, status=status, elapsed_s=elapsed_s
    )


def _status(drifted: int) -> str:
    return "drift" if drifted else "exact"


def _after(before: Progress, report: VerifyReport, position: Position | None, budget_s: float) -> Progress:
    is_new = before.position is None
    # Twice as much or half at a time: one part alone may be slow by chance.
    factor = min(2.0, max(0.5, budget_s / max(report.elapsed_s, 1e-6)))
    return Progress(
        position,
        (0 if is_new else before.groups) + report.groups,
        (0 if is_new else before.drifted) + report.drifted,
        before.passes + (position is None),
        min(MOST, max(1, round(before.size * factor))),
    )
