"""plan, redefine and rename on the command line: their words, their JSON, their exit codes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import application

ADDED = 'measure "most" added: max(total)'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with application(tmp_path, monkeypatch) as here:
        yield here
