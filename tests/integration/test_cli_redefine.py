"""plan, redefine and rename on the command line: their words, their JSON, their exit codes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.commands import ORDERS, SHOP, Run, application, ran
from tests.conftest import Connect
from tests.servers import Connection

ADDED = {"part": "measure", "name": "most", "was": None, "now": "max(total)"}
TOLD = 'measure "most" added: max(total)'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The application's directory; `later` declares what `shop` does, otherwise."""
    with application(tmp_path, monkeypatch) as here:
        changed = SHOP.replace("avg(total) AS average", "avg(total) AS average, max(total) AS most")
        (here / "later.py").write_text(changed)
        (here / "renamed.py").write_text(SHOP.replace('"by_region"', '"per_region"'))
        yield here


@pytest.fixture
def tally(
    folder: Path, database: URL, connect: Connect, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run `tally` over the test's database, where all that `shop` declares is kept."""
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    app: Connection = connect(autocommit=True)
    app.execute(ORDERS)

    assert ran(capsys, "install", "--app", "shop:tally").code == 0
    assert ran(capsys, "backfill").code == 0
    return lambda *arguments: ran(capsys, *arguments)


def test_plan_tells_what_changed(tally: Run) -> None:
    told = tally("plan", "--app", "later:tally")
    assert (told.code, told.out.splitlines()) == (
        0, ["-- by_day is declared otherwise than it is installed:", f"--   {TOLD}"],
    )  # fmt: skip
    assert "Run: tally redefine by_day --app later:tally" in told.err
    found = tally("plan", "--app", "later:tally", "--json").json["aggregates"]
    assert {each["name"]: each["changes"] for each in found} == {"by_region": [], "by_day": [ADDED]}


def test_install_refuses_what_changed(tally: Run) -> None:
    refused = tally("install", "--app", "later:tally")
    assert refused.code == 2
    assert f"is installed with another definition: {TOLD}" in refused.err
    assert "Run: tally redefine by_day" in refused.err


def test_redefine(tally: Run) -> None:
    assert "tally plan by_day" in tally("status", "--app", "later:tally").out
    done = tally("redefine", "--app", "later:tally")
    assert done.code == 0
    assert "by_region: is as declared" in done.out
    assert f"by_day: redefined, 7 groups exact ({TOLD})" in done.out
    again = tally("redefine", "by_day", "--app", "later:tally", "--json")
    assert (again.code, again.json) == (0, {"aggregates": [{"name": "by_day", "changes": []}]})
    assert tally("verify").code == 0


def test_abort(tally: Run) -> None:
    refused = tally("redefine", "--abort", "by_day")
    assert refused.code == 2
    assert "no redefinition is under way" in refused.err
    assert tally("redefine", "--abort").code == 2


def test_rename(tally: Run) -> None:
    done = tally("rename", "by_region", "per_region", "--app", "renamed:tally")
    assert (done.code, done.out) == (0, "by_region: is per_region from now on\n")
    assert tally("verify", "per_region").code == 0
    gone = tally("rename", "by_region", "per_region", "--app", "renamed:tally", "--json")
    assert gone.code == 2
    assert '"by_region" is not installed' in gone.json["error"]["message"]
    assert gone.json["error"]["hint"] == "Name it as it is installed: tally status --app renamed:tally"


def test_uninstall_of_what_is_not_declared_any_more(tally: Run) -> None:
    assert tally("rename", "by_region", "per_region", "--app", "renamed:tally").code == 0
    assert "not declared any more" in tally("status", "--app", "shop:tally").out
    assert tally("uninstall", "per_region", "--yes", "--app", "shop:tally").out == "per_region: removed\n"
