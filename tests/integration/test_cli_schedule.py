"""`tally schedule` over a real database."""

from pathlib import Path

import pytest
from sqlalchemy import URL, Engine

from tallystick import Tally
from tests.commands import Run, ran


@pytest.fixture
def tally(
    database: URL, engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run `tally` where a counter is installed, in a directory without an application."""
    declared = Tally()
    declared.counter("clicks")
    declared.install(engine)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    return lambda *arguments: ran(capsys, *arguments)


def test_add_list_remove(tally: Run) -> None:
    assert "no schedules" in tally("schedule", "list").out
    added = tally("schedule", "add", "midnight", "0 0 * * *", "reset", "clicks", "--key", "a")
    assert added.code == 0
    assert "midnight: reset clicks, key 'a', for the first time at " in added.out
    assert "00:00:00 UTC" in added.out
    (found,) = tally("schedule", "list", "--json").json["schedules"]
    assert (found["name"], found["cron"], found["task"], found["aggregate"], found["key"], found["done_at"]) == (
        "midnight", "0 0 * * *", "reset", "clicks", "a", None,
    )  # fmt: skip
    assert "midnight" in tally("schedule", "list").out
    assert tally("schedule", "remove", "midnight", "--json").json == {"removed": "midnight"}
    assert tally("schedule", "list", "--json").json == {"schedules": []}


def test_wrong_use(tally: Run) -> None:
    wrong = tally("schedule", "add", "x", "0 0 * *", "reset", "clicks")
    assert (wrong.code, wrong.out) == (2, "")
    assert "no cron expression: wrong number of fields" in wrong.err
    unknown = tally("schedule", "remove", "x")
    assert unknown.code == 2
    assert 'there is no schedule "x" (there are: none)' in unknown.err
    assert tally("schedule").code == 0
    elsewhere = tally("schedule", "add", "x", "0 0 * * *", "verify", "--schema", "elsewhere")
    assert elsewhere.code == 2
    assert "tally install" in elsewhere.err
