"""`tally demo` on few flights."""

import pytest
from sqlalchemy import URL, Engine, inspect

from tests.commands import ran
from tests.conftest import Connect

ROWS = 5_000


@pytest.fixture
def dsn(database: URL) -> str:
    return database.render_as_string(hide_password=False)


def test_both_halves_agree_beside_writers(dsn: str, capsys: pytest.CaptureFixture[str], connect: Connect) -> None:
    done = ran(capsys, "demo", "--rows", str(ROWS), "--json", "--dsn", dsn)
    found = done.json
    assert (done.code, found["exact"], found["flights"]) == (0, True, ROWS)
    assert len(found["queries"]) >= 7
    for query in found["queries"]:
        assert query["equal"] is True, query
        assert {"name", "direct_ms", "kept_ms", "ratio", "equal"} <= set(query)
        assert query["kept_ms"] > 0
    assert {each["status"] for each in found["verified"] + found["verified_beside_writers"]} == {"exact"}
    assert len(found["verified"]) == 6
    assert (found["compared"] > 0, found["differed"]) == (True, 0)
    written = found["written"]
    assert min(written[what] for what in ("committed", "inserted", "updated", "deleted")) > 0
    assert "4 writers at work" in done.err

    connection = connect()
    kept = connection.execute("SELECT flights FROM demo_tally.totals").fetchall()
    assert kept == connection.execute("SELECT count(*) FROM demo.flights").fetchall()
    assert kept == [(ROWS + written["inserted"] - written["deleted"],)]


def test_it_replaces_its_own_earlier_run_and_nothing_else(
    dsn: str, engine: Engine, capsys: pytest.CaptureFixture[str], connect: Connect
) -> None:
    assert ran(capsys, "demo", "--rows", "500", "--dsn", dsn).code == 0
    again = ran(capsys, "demo", "--rows", "800", "--dsn", dsn)
    assert again.code == 0
    assert "Loaded 800 flights" in again.out
    assert "tally status --schema demo_tally" in again.out
    assert ran(capsys, "verify", "--schema", "demo_tally", "--dsn", dsn).code == 0

    connect(autocommit=True).execute("COMMENT ON SCHEMA demo IS 'mine'")
    refused = ran(capsys, "demo", "--dsn", dsn)
    assert (refused.code, refused.out) == (2, "")
    assert 'a schema "demo" that no demo has made' in refused.err
    assert inspect(engine).has_table("flights", schema="demo")


def test_two_at_once_are_refused(dsn: str, capsys: pytest.CaptureFixture[str], connect: Connect) -> None:
    connect().execute("SELECT pg_advisory_xact_lock(hashtextextended('tallystick demo', 0))")
    refused = ran(capsys, "demo", "--dsn", dsn)
    assert refused.code == 1
    assert "Another demo is running in this database." in refused.err


def test_a_missing_package_is_named(
    dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystick.demo.flights.find_spec", lambda _: None)
    refused = ran(capsys, "demo", "--dsn", dsn, "--json")
    assert refused.code == 1
    assert refused.json["error"]["hint"] == 'Run: pip install "tallystick[demo]"'
