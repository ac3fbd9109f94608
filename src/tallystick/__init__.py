"""tallystick: exact, always-fresh counts, sums and ranks over PostgreSQL tables, declared in Python."""

from tallystick.declare.counter import Counter
from tallystick.declare.grouped import Grouped
from tallystick.declare.ordered import Ordered
from tallystick.declare.ranges import Bound
from tallystick.declare.reads import direct_of
from tallystick.errors import (
    DeclarationError,
    FoldLocked,
    InstallError,
    MissingPrivilege,
    NotInstalled,
    NotKept,
    RedefinitionRefused,
    ServerUnavailable,
    TallyError,
    UsageError,
)
from tallystick.maintain.tally import Tally

__all__ = [
    "Bound",
    "Counter",
    "DeclarationError",
    "FoldLocked",
    "Grouped",
    "InstallError",
    "MissingPrivilege",
    "NotInstalled",
    "NotKept",
    "Ordered",
    "RedefinitionRefused",
    "ServerUnavailable",
    "Tally",
    "TallyError",
    "UsageError",
    "direct_of",
]
