"""Every error is a TallyError with one sentence, a hint and an exit code."""

import pytest

from tallystick import errors
from tallystick.errors import SourceLocked, TallyError

EXIT_CODES = {
    "TallyError": 1,
    "UsageError": 2,
    "DeclarationError": 2,
    "NotInstalled": 2,
    "NotKept": 1,
    "InstallError": 1,
    "RedefinitionRefused": 1,
    "SourceLocked": 1,
    "MissingPrivilege": 2,
    "FoldLocked": 1,
    "MaintenanceRefused": 1,
    "NotWhole": 1,
    "ServerUnavailable": 3,
}
CLASSES: dict[str, type[TallyError]] = {
    name: found for name, found in vars(errors).items() if isinstance(found, type) and issubclass(found, TallyError)
}


def test_one_hierarchy() -> None:
    assert {name: found.exit_code for name, found in CLASSES.items()} == EXIT_CODES
    assert {name for name, found in vars(errors).items() if isinstance(found, type)} == EXIT_CODES.keys()


@pytest.mark.parametrize("name", sorted(EXIT_CODES.keys() - {"SourceLocked"}))
def test_message_and_hint(name: str) -> None:
    error = CLASSES[name]("Nothing there.", hint="Run: tally install x")
    assert (error.message, error.hint) == ("Nothing there.", "Run: tally install x")
    assert str(error) == "Nothing there. Run: tally install x"
    assert str(CLASSES[name]("Nothing there.")) == "Nothing there."


def test_source_locked_names_its_table() -> None:
    error = SourceLocked("public.t", by_readers=True)
    assert (error.table, error.by_readers) == ("public.t", True)
    assert str(error) == "public.t is locked by others. Try again."
