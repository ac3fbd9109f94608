"""The command line without a database: wrong use, init, and the spellings of a DSN."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tallystick.cli.output import Output, counted
from tallystick.cli.target import url_of
from tests.commands import Run, application, ran

NOWHERE = "postgresql://someone:secret@127.0.0.1:1/nowhere"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with application(tmp_path, monkeypatch) as here:
        yield here


@pytest.fixture
def tally(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tally` in the application's directory; there is no database."""
    monkeypatch.setenv("TALLY_DSN", NOWHERE)
    return lambda *arguments: ran(capsys, *arguments)


@pytest.mark.parametrize(
    ("app", "sentence", "hint"),
    [
        ("nowhere:tally", 'there is no module "nowhere"', "tally init"),
        ("shop", "is not of the form module:registry", "shop:tally"),
        ("shop.py:tally", "is not of the form module:registry", "shop:tally"),
        ("shop:tallies", 'module shop has no "tallies"', "Did you mean shop:tally?"),
        ("shop:not_a_tally", "expected a Tally, got int", "registry"),
        ("shop:empty", "the registry declares no aggregates", "tally.grouped"),
        ("lame:tally", "importing lame fails: ModuleNotFoundError: No module named 'crutch'", "Mend"),
        ("mad:tally", "importing mad fails: ValueError: [no] reason", "Mend"),
        ("refused:tally", 'aggregate "x": a HAVING clause cannot be kept', "Keep every group"),
    ],
)
def test_a_wrong_app_is_told_in_a_sentence(tally: Run, folder: Path, app: str, sentence: str, hint: str) -> None:
    (folder / "lame.py").write_text("import crutch\n")
    (folder / "mad.py").write_text("raise ValueError('[no] reason')\n")
    (folder / "refused.py").write_text(
        "from tallystick import Tally\n"
        "Tally().grouped('x', 'SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 1')\n"
    )
    shown = tally("install", "--app", app)
    assert (shown.code, shown.out) == (2, "")
    assert sentence in shown.err
    assert hint in shown.err
    error = tally("install", "--app", app, "--json").json["error"]
    assert sentence in error["message"]
    assert hint in error["hint"]


@pytest.mark.parametrize(
    "dsn", ["mysql://u:secret@h/d", "postgresql://u:secret@h:port/d", "secret", "user=u hots=secret"]
)
def test_a_dsn_that_cannot_be_read_ends_with_2_and_is_not_repeated(dsn: str, tally: Run) -> None:
    shown = tally("status", "--dsn", dsn)
    assert shown.code == 2
    assert "postgresql://user@host:5432/database" in shown.err
    assert "secret" not in shown.err


@pytest.mark.parametrize(
    "written",
    ["postgres://u@h:1/d", "postgresql://u@h:1/d", "postgresql+asyncpg://u@h:1/d", "host=h port=1 user=u dbname=d"],
)
def test_a_dsn_in_any_spelling_is_read(written: str) -> None:
    url = url_of(written, Output(as_json=False))
    arguments = url.translate_connect_args() | dict(url.query)
    assert url.drivername == "postgresql+psycopg"
    assert [str(arguments[name]) for name in ("username", "host", "port", "database")] == ["u", "h", "1", "d"]


def test_wrong_options_end_with_2(tally: Run) -> None:
    for arguments in (["stat"], ["status", "--loud"], ["demo", "--rows", "0"], ["demo", "--rows", "few"]):
        shown = tally(*arguments)
        assert (shown.code, shown.out) == (2, "")
        assert shown.err.startswith("Error: ")
        assert tally(*arguments, "--json").json["error"]["message"]
    for arguments in ([], ["--help"], ["bench"], ["status", "--help"]):
        assert tally(*arguments).code == 0


def test_init_overwrites_nothing(tally: Run, folder: Path) -> None:
    (folder / "tallies.py").write_text("mine")
    refused = tally("init")
    assert refused.code == 2
    assert "--force" in refused.err
    assert (folder / "tallies.py").read_text() == "mine"
    assert tally("init", "--force").code == 0
    assert (folder / "tallies.py").read_text() != "mine"

    made = tally("init", "--app", "kept_things:registry", "--json").json
    assert (made["file"], made["app"]) == ("kept_things.py", "kept_things:registry")
    assert tally("init", "no/such/folder.py").code == 2
    for wrong in (["my-tallies.py"], ["tallies.txt"], ["../out.py"], ["a.py", "--app", "a:b"], ["--app", "a"]):
        assert tally("init", *wrong).code == 2, wrong


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0 groups"), (1, "1 group"), (2, "2 groups"), (1_000, "1,000 groups")]
)
def test_how_many_of_what(number: int, told: str) -> None:
    assert counted(number, "groups") == told
