"""`tally counter`, and counters in the other commands: JSON, exit codes, answers to wrong use."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from tests.commands import ORDERS, Run, application, ran
from tests.conftest import Connect
from tests.servers import Connection

COUNTERS = """
from sqlalchemy import Column, MetaData, Table, Text, func, select
from tallystick import Tally

orders = Table("orders", MetaData(), Column("region", Text))
tally = Tally()
tally.counter("visits", shards=2)
by_region = select(orders.c.region, func.count()).where(orders.c.region.is_not(None)).group_by(orders.c.region)
tally.counter("regions", direct=by_region)
tally.grouped("by_region", select(orders.c.region, func.count().label("n")).group_by(orders.c.region))
more = Tally()
more.counter("visits", shards=5)
"""
APP = ("--app", "counting:tally")


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(ORDERS)
    return connection


@pytest.fixture
def tally(
    tmp_path: Path, database: URL, app: Connection, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Run]:
    """Run `tally` over the test's database, with counters installed, in the application's directory."""
    with application(tmp_path, monkeypatch) as folder:
        (folder / "counting.py").write_text(COUNTERS)
        monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
        yield lambda *arguments: ran(capsys, *arguments)


@pytest.fixture
def installed(tally: Run) -> Run:
    assert tally("install", *APP).code == 0
    return tally


def test_the_whole_life(tally: Run) -> None:
    planned = tally("plan", "--json", *APP).json["aggregates"]
    assert [(each["name"], each["source"], each["installed"]) for each in planned] == [
        ("by_region", "public.orders", False), ("visits", None, False), ("regions", None, False),
    ]  # fmt: skip
    assert "CREATE VIEW" in tally("plan", "visits", *APP).out
    assert tally("install", "--json", *APP).json["aggregates"][1:] == [
        {"name": "visits", "source": None, "new": True}, {"name": "regions", "source": None, "new": True},
    ]  # fmt: skip
    assert "visits: installed already" in tally("install", *APP).out
    assert "visits: installed already" in tally("plan", *APP).err
    assert tally("verify", *APP).code == 1
    filled = tally("backfill", "--json", *APP).json["aggregates"]
    assert [(each["name"], each["groups"]) for each in filled] == [("by_region", 5), ("regions", 4)]
    verified = tally("verify", "--json", *APP)
    assert (verified.code, [each["name"] for each in verified.json["aggregates"]]) == (0, ["by_region", "regions"])
    assert verified.json["exact"] is True
    assert tally("verify", "visits", *APP).code == 2
    status = {each["name"]: each for each in tally("status", "--json", *APP).json["aggregates"]}
    assert (status["visits"]["kind"], status["visits"]["phase"], status["regions"]["groups"]) == ("counter", "kept", 4)
    assert "counter" in tally("status").out
    folded = tally("fold", "--json", *APP).json["aggregates"]
    assert [each["name"] for each in folded] == ["by_region", "visits", "regions"]
    assert "visits: 0 rows fewer in 0 keys" in tally("fold").out
    assert tally("doctor", *APP).code == 0
    changed = tally("doctor", "--json", "--app", "counting:more").json["findings"]
    assert [each["remedy"] for each in changed if each["subject"] == "visits"] == [
        "tally install visits --app counting:more"
    ]
    assert tally("uninstall", "-y", "--json", *APP).json == {"removed": ["by_region", "visits", "regions"]}
    assert tally("counter", "get", "visits").code == 2


def test_get_set_reset_rebalance(installed: Run) -> None:
    tally = installed
    assert tally("counter", "get", "visits", "--json").json == {"counter": "visits", "counts": []}
    assert tally("counter", "set", "visits", "home", "41", "--json").json == {
        "counter": "visits", "key": "home", "count": 41,
    }  # fmt: skip
    assert tally("counter", "set", "visits", "home", "-7").out == "visits, 'home': -7\n"
    assert tally("counter", "set", "visits", "", "3").code == 0
    assert tally("counter", "get", "visits", "home", "x", "--json").json["counts"] == [
        {"key": "home", "count": -7}, {"key": "x", "count": 0},
    ]  # fmt: skip
    assert [each["key"] for each in tally("counter", "get", "visits", "--json").json["counts"]] == ["", "home"]
    assert "home" in tally("counter", "get", "visits").out
    assert tally("counter", "rebalance", "visits", "home", "--json").json["count"] == -7
    assert tally("counter", "reset", "visits", "home", "--json").json["count"] == 0
    assert tally("counter", "reset", "visits", "home").code == 0
    assert [each["key"] for each in tally("counter", "get", "visits", "--json").json["counts"]] == [""]


def test_verify(installed: Run) -> None:
    tally = installed
    tally("backfill", *APP)
    assert tally("counter", "verify", "regions").out == "regions: exact\n"
    assert tally("counter", "set", "regions", "r1", "5").code == 0
    drift = tally("counter", "verify", "regions", "--json")
    assert (drift.code, drift.json) == (1, {
        "counter": "regions", "exact": False, "keys": [{
            "counter": "regions", "key": "r1", "actual": "5", "direct": "140", "diff": "-135", "status": "drift",
        }],
    })  # fmt: skip
    told = tally("counter", "verify", "regions", "r1", "r2")
    assert (told.code, "-135" in told.out, "exact" in told.out) == (1, True, True)
    assert "tally backfill regions" in told.err
    assert tally("counter", "verify", "regions", "r2", "--json").code == 0
    damaged = tally("verify", *APP)
    assert damaged.code == 1
    assert f"1 of 2 aggregates drift. Run: tally backfill regions {' '.join(APP)}" in damaged.err
    assert tally("backfill", "regions").code == 0
    assert tally("counter", "verify", "regions").code == 0


def test_drift_that_a_schedule_found_is_mended_by_a_backfill(installed: Run, app: Connection) -> None:
    tally = installed
    tally("backfill", *APP)
    app.execute(
        "INSERT INTO tally.event (what, aggregate, detail) VALUES ('verify', 'regions', '{\"status\": \"drift\"}')"
    )
    found = tally("status", "--check", "--json")
    assert found.code == 1
    assert [(each["subject"], each["remedy"]) for each in found.json["problems"]] == [
        ("regions", "tally backfill regions")
    ]
    assert tally("backfill", "regions").code == 0
    assert tally("status", "--check").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("get", "nothing"), 2, 'counter "nothing" is not installed'),
        (("get", "by_region"), 2, 'counter "by_region" is not installed'),
        (("set", "visits", "k", "many"), 2, '"many" is not a number'),
        (("set", "visits", "k", "1.5"), 2, "expected an int"),
        (("set", "visits", "k", "NaN"), 2, "expected an int"),
        (("set", "visits", "k", "9223372036854775808"), 1, "bigint out of range"),
        (("set", "visits", "k"), 2, "Missing argument 'N'.\nRun: tally counter set --help"),
        (("reset", "visits", "x" * 2001), 2, "at most 2,000 are taken"),
        (("verify", "visits"), 2, 'counter "visits" has no direct query'),
    ],
)
def test_wrong_use(installed: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = installed("counter", *arguments)
    assert (ran.code, said in ran.err) == (code, True), ran.err
    assert ran.out == ""
