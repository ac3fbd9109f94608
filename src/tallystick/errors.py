"""Every error that tallystick raises on purpose: one base class, a hint that names the next step.

A message says what, where, expected and got; `hint` says what to do or run next; `exit_code` is what the
command line ends with (1 drift or a failed check, 2 wrong use, 3 database not reachable).
"""

from __future__ import annotations


class TallyError(Exception):
    """Base class. `str(error)` is one sentence; `error.hint`, if any, names the next step."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message} {self.hint}"


class UsageError(TallyError):
    """A call or command that cannot mean anything: unknown name, missing option, wrong kind of argument."""

    exit_code = 2


class DeclarationError(UsageError):
    """A declaration that cannot be kept; raised when it is declared if its text shows it, else by plan and install."""


class InstallError(TallyError):
    """The database refused an installation or a removal; nothing was left half-done."""


class SourceLocked(InstallError):
    """Others are in a table that is needed for a moment.

    `table` is its name; `by_readers` tells whether mere readers are in the way.
    """

    def __init__(self, table: str, *, by_readers: bool) -> None:
        super().__init__(f"{table} is locked by others.", hint="Try again.")
        self.table = table
        self.by_readers = by_readers


class RedefinitionRefused(TallyError):
    """An aggregate cannot be given its changed definition; readers have the present one."""


class MissingPrivilege(InstallError):
    """The connected role lacks a right that the operation needs."""

    exit_code = 2


class NotInstalled(UsageError):
    """The aggregate, or the whole schema, is not in the connected database."""


class FoldLocked(TallyError):
    """Another worker is folding or rebuilding this aggregate; nothing was done."""


class MaintenanceRefused(TallyError):
    """PostgreSQL does not let our own tables be changed; nothing was done, and writers and readers go on."""


class NotWhole(TallyError):
    """A partition went, came or was emptied in a way that cannot be made up for; readers are served by the source."""


class NotKept(TallyError):
    """There is nothing that readers could be served beside the source: it is not complete, or does not stand."""


class ServerUnavailable(TallyError):
    """The database cannot be reached, or the embedded server cannot be started."""

    exit_code = 3
