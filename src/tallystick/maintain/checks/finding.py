"""What a check tells."""

from __future__ import annotations

from dataclasses import dataclass

from tallystick.store.aggregates import Installed

LONG_BACKLOG = 100_000
"""Rows that wait to be folded, from which on reads are slow."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `remedy` is the next command.

    `level` is "error" (answers are or may become wrong, or slow until somebody acts) or "advice".
    """

    level: str
    subject: str
    what: str
    remedy: str


def anew(found: Installed) -> str:
    """The remedy where objects of an aggregate are not there any more."""
    name = found.name
    if found.replaces is not None:
        return f"tally redefine --abort {found.replaces} && tally redefine {found.replaces}"
    return f"tally uninstall {name} && tally install {name} && tally backfill {name}"
