"""tallystick: exact, always-fresh counts, sums and ranks over PostgreSQL tables, declared in Python."""

from tallystick.declare.counter import Counter
from tallystick.declare.grouped import Grouped
from tallystick.declare.reads import direct_of
from tallystick.errors import (
    DeclarationError,
    FoldLocked,
    InstallError,
    MissingPrivilege,
    NotInstalled,
    ServerUnavailable,
    TallyError,
    UsageError,
)
from tallystick.maintain.tally import Tally

__all__ = [
    "Counter",
    "DeclarationError",
    "FoldLocked",
    "Grouped",
    "InstallError",
    "MissingPrivilege",
    "NotInstalled",
    "ServerUnavailable",
    "Tally",
    "TallyError",
    "UsageError",
    "direct_of",
]
