"""Trying again: what others keep us from doing now is done a little later, and never waited for in a queue of locks."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sqlalchemy import Engine

from tallystick.errors import FoldLocked, InstallError, SourceLocked
from tallystick.store import catalog
from tallystick.store.connection import RETRYABLE, transaction
from tallystick.store.locks import pause

LOCK_ATTEMPTS = 20
LOCK_PAUSE_S = 0.5
_Result = TypeVar("_Result")
_Given = ParamSpec("_Given")


def patiently(
    engine: Engine, attempt: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs
) -> _Result:
    """Try until nobody is in the way, with pauses of random length between the tries.

    Raises:
        InstallError: a table stayed locked by others.
        FoldLocked: another session folded or rebuilt the aggregate all the time.
    """
    remaining = LOCK_ATTEMPTS
    while True:
        try:
            return attempt(*given, **named)
        except (SourceLocked, FoldLocked, *RETRYABLE) as error:
            remaining -= 1
            if remaining == 0:
                if isinstance(error, SourceLocked):
                    raise _still_locked(engine, error) from error
                raise
        with transaction(engine) as cursor:
            pause(cursor, LOCK_PAUSE_S * random.uniform(0.5, 1.5))  # noqa: S311 (a jitter, not a secret)


def _still_locked(engine: Engine, error: SourceLocked) -> InstallError:
    with transaction(engine) as cursor:
        blockers = catalog.blockers(cursor, error.table, readers=error.by_readers)
    held_by = "; ".join(map(str, blockers)) or "sessions that have ended since"
    return InstallError(
        f"{error.table} could not be locked in {LOCK_ATTEMPTS} tries; locked by {held_by}.",
        hint="Let those transactions end, then run it again. Nothing was changed.",
    )
