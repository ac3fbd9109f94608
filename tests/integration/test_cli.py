"""The command line over a real database: each command, its JSON, its exit codes, and its answers to wrong use."""

import io
import json
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from tests.commands import ORDERS, Run, application, ran
from tests.conftest import Connect
from tests.servers import Server
from tests.workers import MAIN, PATIENCE_S


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with application(tmp_path, monkeypatch) as here:
        yield here


@pytest.fixture
def dsn(database: URL) -> str:
    return database.render_as_string(hide_password=False)


@pytest.fixture
def tally(folder: Path, dsn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `tally` over the test's database, in the application's directory."""
    monkeypatch.setenv("TALLY_DSN", dsn)

    return lambda *arguments: ran(capsys, *arguments)


@pytest.fixture
def shop(tally: Run, connect: Connect) -> psycopg.Connection[tuple[Any, ...]]:
    """The application's table, filled, over an autocommitting connection."""
    connection = connect(autocommit=True)
    connection.execute(ORDERS)
    return connection


@pytest.fixture
def kept(shop: psycopg.Connection[tuple[Any, ...]], tally: Run) -> psycopg.Connection[tuple[Any, ...]]:
    """The same with both aggregates kept."""
    assert tally("install", "--app", "shop:tally").code == 0
    assert tally("backfill").code == 0
    return shop


def test_the_whole_life_as_json(shop: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    app = ("--app", "shop:tally", "--json")

    plan = tally("plan", *app).json
    assert [each["name"] for each in plan["aggregates"]] == ["by_region", "by_day"]
    first = plan["aggregates"][0]
    assert (first["source"], first["installed"]) == ("public.orders", False)
    assert set(first["statements"][0]) == {"purpose", "sql"}
    assert plan["schema"]["installed"] is False

    assert tally("install", *app).json == {
        "aggregates": [
            {"name": "by_region", "source": "public.orders", "new": True},
            {"name": "by_day", "source": "public.orders", "new": True},
        ]
    }
    assert [each["new"] for each in tally("install", *app).json["aggregates"]] == [False, False]
    assert tally("plan", *app).json["aggregates"][0] == {
        "name": "by_region", "source": "public.orders", "installed": True, "statements": [], "changes": [],
    }  # fmt: skip

    phases = [(each["name"], each["phase"], each["serving"]) for each in tally("status", *app).json["aggregates"]]
    assert phases == [("by_day", "building", "direct"), ("by_region", "building", "direct")]

    groups = {each["name"]: each["groups"] for each in tally("backfill", *app).json["aggregates"]}
    assert groups == {"by_region": 5, "by_day": 7}

    shop.execute("INSERT INTO orders (region, total, placed) VALUES ('new', 1, '2025-01-01')")
    [folded] = tally("fold", "by_region", *app).json["aggregates"]
    assert {key: folded[key] for key in ("name", "deltas", "groups", "locked")} == {
        "name": "by_region", "deltas": 1, "groups": 1, "locked": False,
    }  # fmt: skip

    verified = tally("verify", *app)
    assert (verified.code, verified.json["exact"]) == (0, True)
    assert [(each["name"], each["status"], each["groups"]) for each in verified.json["aggregates"]] == [
        ("by_region", "exact", 6), ("by_day", "exact", 7),
    ]  # fmt: skip

    [by_day, by_region] = tally("status", *app).json["aggregates"]
    assert (by_region["phase"], by_region["backlog"], by_day["backlog"]) == ("kept", 0, 1)

    assert tally("uninstall", "--yes", *app).json == {"removed": ["by_region", "by_day"]}
    assert [each["phase"] for each in tally("status", *app).json["aggregates"]] == ["declared", "declared"]


def test_the_whole_life_for_people(shop: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    app = ("--app", "shop:tally")
    installed = tally("install", *app)
    assert installed.out.splitlines() == [
        "by_region: installed over public.orders", "by_day: installed over public.orders",
    ]  # fmt: skip
    assert "tally backfill" in installed.err
    assert "by_region: not backfilled yet" in tally("verify").out
    assert "by_region: 5 groups" in tally("backfill", *app).out
    assert "by_region: 0 deltas" in tally("fold", *app).out
    assert "by_region: exact, 5 groups" in tally("verify", *app).out
    status = tally("status", *app).out
    assert "public.orders" in status
    assert "kept" in status
    assert "by_day: removed" in tally("uninstall", "by_day", "-y").out
    assert "tally install by_day" in tally("status", *app).out
    # what is declared and gone is in nobody's way
    assert tally("uninstall", "-y", *app).out == "by_region: removed\n"
    nothing = tally("status")
    assert (nothing.code, nothing.out[:20]) == (0, "Nothing is installed")


def test_names_choose(shop: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    assert tally("install", "by_day", "--app", "shop:tally").out == "by_day: installed over public.orders\n"
    assert [each["name"] for each in tally("status", "--json").json["aggregates"]] == ["by_day"]

    unknown = tally("install", "by_month", "--app", "shop:tally")
    assert unknown.code == 2
    assert 'Error: aggregate "by_month" is not declared (declared: by_region, by_day).' in unknown.err

    declared = tally("verify", "--app", "shop:tally")
    assert declared.code == 2
    assert 'not installed in schema "tally": by_region (installed: by_day)' in declared.err
    assert "Run: tally install by_region" in declared.err

    assert "Check the name." in tally("fold", "by_month").err


def test_the_database_alone_suffices(kept: psycopg.Connection[tuple[Any, ...]], tally: Run, folder: Path) -> None:
    (folder / "shop.py").unlink()
    (folder / "pyproject.toml").write_text('[tool.tallystick]\napp = "broken"\n')
    schema = ("--schema", "tally")
    for command in ("status", "verify", "fold", "backfill", "doctor"):
        assert tally(command, *schema).code == 0, command
    assert tally("uninstall", "--yes", *schema).code == 0
    assert kept.execute("SELECT count(*) FROM tally.aggregate").fetchall() == [(0,)]
    for command in ("verify", "fold", "backfill", "uninstall"):
        nothing = tally(command, *schema)
        assert nothing.code == 2
        assert 'nothing is installed in schema "tally" of postgresql://' in nothing.err


def test_the_plan_runs_in_another_database(
    shop: psycopg.Connection[tuple[Any, ...]], tally: Run, server: Server, template: str
) -> None:
    plan = tally("plan", "--app", "shop:tally")
    assert plan.code == 0
    assert plan.out.startswith("BEGIN;\n\n-- names resolve in pg_catalog only\n")
    assert shop.execute("SELECT to_regnamespace('tally') IS NULL").fetchall() == [(True,)]
    name = server.create_database(template)
    try:
        with server.connect(name) as other:
            other.execute(ORDERS)
            other.execute(plan.out.encode())
            other.execute("INSERT INTO orders (region, total, placed) VALUES ('r1', 1, '2025-01-01')")
            assert other.execute("SELECT name, phase FROM tally.aggregate ORDER BY name").fetchall() == [
                ("by_day", "building"),
                ("by_region", "building"),
            ]
            # nothing has told the views yet to serve the kept half, which has only seen the last order
            assert other.execute("SELECT orders FROM tally.by_region WHERE region = 'r1'").fetchall() == [(141,)]
            assert other.execute("SELECT region, orders FROM tally.by_region__kept").fetchall() == [("r1", 1)]
    finally:
        server.drop_database(name)

    tally("install", "--app", "shop:tally")
    done = tally("plan", "--app", "shop:tally")
    assert (done.out, done.err.splitlines()) == ("", ["by_region: installed already", "by_day: installed already"])


def test_drift_is_shown_and_ends_with_1(kept: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    kept.execute("UPDATE tally.by_region__state SET n = n - 1 WHERE k1 = 'r1'")
    kept.execute("DELETE FROM tally.by_region__state WHERE k1 IS NULL")

    shown = tally("verify")
    assert shown.code == 1
    assert "by_region: DRIFT in 2 of 5 groups" in shown.out
    assert "by_day: exact" in shown.out
    assert [part in shown.out for part in ("region r1", "139", "140", "region NULL", "no such group")] == [True] * 5
    assert "1 of 2 aggregates drift. Run: tally repair by_region" in shown.err

    found = tally("verify", "by_region", "--json")
    assert (found.code, found.json["exact"]) == (1, False)
    [report] = found.json["aggregates"]
    assert (report["status"], report["drifted"]) == ("drift", 2)
    assert report["first"][0]["group"] == {"region": "r1"}
    assert report["first"][0]["kept"]["orders"] == 139
    assert report["first"][0]["direct"] == {"orders": 140, "total": "60987.50"}
    assert report["first"][1]["kept"] is None

    assert "complete already" in tally("backfill", "by_region").out
    assert tally("verify").code == 1
    assert tally("backfill", "by_region", "--force").code == 0
    assert tally("verify").code == 0


def test_doctor_ends_with_1_when_answers_may_be_wrong(kept: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    kept.execute("ALTER TABLE orders DISABLE TRIGGER tally_by_day__insert")
    found = tally("doctor", "--json")
    assert found.code == 1
    [error] = [each for each in found.json["findings"] if each["level"] == "error"]
    assert (error["subject"], set(error)) == ("by_day", {"level", "subject", "what", "remedy"})

    shown = tally("doctor")
    assert shown.code == 1
    assert 'by_day: trigger "tally_by_day__insert" on public.orders is disabled' in shown.out
    assert "ENABLE TRIGGER" in shown.out

    kept.execute("ALTER TABLE orders ENABLE TRIGGER tally_by_day__insert")
    assert tally("doctor").code == 0


def test_a_locked_aggregate_does_not_keep_the_others_from_being_folded(
    kept: psycopg.Connection[tuple[Any, ...]], tally: Run, connect: Connect
) -> None:
    kept.execute("INSERT INTO orders (region, total, placed) VALUES ('r1', 1, '2025-01-01')")
    worker = connect()
    worker.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.by_day', 0))")
    folded = tally("fold", "--json")
    assert folded.code == 1
    assert [(each["name"], each["locked"]) for each in folded.json["aggregates"]] == [
        ("by_day", True), ("by_region", False),
    ]  # fmt: skip
    worker.rollback()
    assert tally("fold").code == 0


def test_without_an_app_install_asks_for_it(tally: Run, folder: Path, shop: object) -> None:
    asked = tally("install")
    assert asked.code == 2
    assert "--app tallies:tally" in asked.err

    (folder / "pyproject.toml").write_text('[tool.tallystick]\napp = "shop:tally"\n')
    assert tally("install").code == 0
    assert tally("status", "--schema", "other").out.startswith('Nothing is installed in schema "other"')
    assert "contradicts" in tally("status", "--schema", "other", "--app", "shop:tally").err

    for text, sentence in (("[tool", "cannot be read"), ("[tool.tallystick]\napp = 1", "expected a string")):
        (folder / "pyproject.toml").write_text(text)
        wrong = tally("install")
        assert wrong.code == 2
        assert sentence in wrong.err


def test_nothing_is_installed_when_one_declaration_is_refused(
    shop: psycopg.Connection[tuple[Any, ...]], tally: Run, folder: Path
) -> None:
    with (folder / "shop.py").open("a") as module:
        module.write('tally.grouped("typo", "SELECT regin, count(*) AS n FROM orders GROUP BY regin")\n')
    refused = tally("install", "--app", "shop:tally")
    assert (refused.code, refused.out) == (2, "")
    assert 'aggregate "typo": column "regin" does not exist on orders' in refused.err
    assert 'Did you mean "region"?' in refused.err
    assert shop.execute("SELECT to_regnamespace('tally') IS NULL").fetchall() == [(True,)]
    assert shop.execute("SELECT count(*) FROM pg_trigger").fetchall() == [(0,)]


def test_a_missing_right_ends_with_2(
    shop: psycopg.Connection[tuple[Any, ...]], tally: Run, make_role: Callable[[], str], database: URL
) -> None:
    stranger = database.set(username=make_role()).render_as_string(hide_password=False)
    refused = tally("install", "--app", "shop:tally", "--dsn", stranger)
    assert refused.code == 2
    assert "permission denied" in refused.err
    assert shop.execute("SELECT to_regnamespace('tally') IS NULL").fetchall() == [(True,)]


def test_an_unreachable_database_ends_with_3(tally: Run) -> None:
    where = "postgresql://someone:secret@127.0.0.1:1/nowhere"
    shown = tally("status", "--dsn", where)
    assert (shown.code, shown.out) == (3, "")
    assert "cannot connect to postgresql" in shown.err
    assert "Check that the server runs" in shown.err
    found = tally("status", "--dsn", where, "--json")
    assert found.code == 3
    assert set(found.json["error"]) == {"message", "hint"}
    assert "secret" not in shown.err + found.out + found.err


class Terminal(io.StringIO):
    """What is typed at a terminal."""

    def isatty(self) -> bool:
        return True


def test_uninstall_asks(kept: psycopg.Connection[tuple[Any, ...]], tally: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = tally("uninstall")
    assert refused.code == 2
    assert "uninstall would remove by_day, by_region." in refused.err
    assert "--yes" in refused.err
    assert tally("uninstall", "--json").code == 2

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert tally("uninstall").code == 1
    assert kept.execute("SELECT count(*) FROM tally.aggregate").fetchall() == [(2,)]

    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert tally("uninstall", "by_day").code == 0
    assert kept.execute("SELECT name FROM tally.aggregate").fetchall() == [("by_region",)]


def test_init_writes_what_the_other_commands_can_use(tally: Run, folder: Path) -> None:
    written = tally("init")
    assert written.code == 0
    assert "tally plan --app tallies:tally" in written.out
    runpy.run_path(str(folder / "tallies.py"), run_name="__main__")  # makes the example's table
    app = ("--app", "tallies:tally")
    for command in ("plan", "install", "backfill", "verify", "status", "doctor"):
        assert tally(command, *app).code == 0, command
    assert [each["phase"] for each in tally("status", *app, "--json").json["aggregates"]] == ["kept", "kept"]


PARTITIONED = """
CREATE TABLE sale (id bigint, day date, region text) PARTITION BY RANGE (day);
CREATE TABLE sale_1 PARTITION OF sale FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE region (name text PRIMARY KEY, sales bigint);
INSERT INTO region VALUES ('north'), ('south');
INSERT INTO sale SELECT i, '2024-01-05', CASE WHEN i % 3 > 0 THEN 'north' ELSE 'south' END FROM generate_series(1, 9) i;
"""
SALES = """
from sqlalchemy import BigInteger, Column, MetaData, Table, Text
from tallystick import Tally

region = Table("region", MetaData(), Column("name", Text), Column("sales", BigInteger))
tally = Tally()
tally.grouped(
    "by_region", "SELECT region, count(*) AS sales FROM sale GROUP BY region", mirror={"sales": region.c.sales}
)
"""


def test_partitions_and_copies(tally: Run, folder: Path, connect: Connect) -> None:
    (folder / "sales.py").write_text(SALES)
    with connect(autocommit=True) as app:
        app.execute(PARTITIONED)
        options = ("--app", "sales:tally")
        assert tally("install", *options).code == 0
        filled = tally("backfill", "--batch-size", "1", *options)
        assert "by_region: 2 groups in" in filled.out
        assert filled.out.rstrip().endswith("; 2 parents brought up to date")
        assert app.execute("SELECT * FROM region ORDER BY 1").fetchall() == [("north", 6), ("south", 3)]
        app.execute("CREATE TABLE sale_2 PARTITION OF sale FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
        app.execute("INSERT INTO sale VALUES (10, '2024-02-02', 'south')")
        status = tally("status", "--json", *options).json["aggregates"][0]
        assert (status["serving"], status["uncounted"]) == ("direct", ["partition sale_2 is not counted yet"])
        assert tally("doctor", *options).code == 0
        folded = tally("fold", *options)
        assert (folded.code, "by_region: counts from now on public.sale_2" in folded.out) == (0, True)
        detached = tally("detach", "public.sale_1", "--json", *options)
        assert (detached.code, detached.json) == (0, {"partition": "public.sale_1", "aggregates": ["by_region"]})
        assert tally("detach", "public.sale_1", *options).code == 2
        assert tally("fold", *options).code == 0
        assert app.execute("SELECT * FROM region ORDER BY 1").fetchall() == [("north", 0), ("south", 1)]
        app.execute("TRUNCATE sale_2")
        folded = tally("fold", "--json", *options)
        assert (folded.code, folded.json["aggregates"][0]["locked"]) == (1, False)
        assert "partition sale_2 was truncated by itself" in folded.json["aggregates"][0]["error"]
        assert tally("verify", *options).code == 0
        assert tally("backfill", "--no-skip-existing", *options).code == 0
        assert app.execute("SELECT * FROM region ORDER BY 1").fetchall() == [("north", 0), ("south", 0)]


def test_fold_all_takes_what_is_kept_and_passes_over_what_others_fold(
    kept: psycopg.Connection[tuple[Any, ...]], tally: Run, connect: Connect, folder: Path
) -> None:
    (folder / "later.py").write_text(
        "from tallystick import Tally\ntally = Tally()\n"
        "tally.grouped('later', 'SELECT id, count(*) AS n FROM orders GROUP BY id')\n"
    )
    assert tally("install", "--app", "later:tally").code == 0, "not backfilled, so it is left out"
    kept.execute("INSERT INTO orders (region) VALUES ('new')")
    with connect() as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('tallystick fold tally.by_day', 0))")
        locked = tally("fold", "--all", "--json")
        assert (tally("fold").code, locked.code) == (1, 0)
    assert [(each["name"], each["locked"]) for each in locked.json["aggregates"]] == [
        ("by_day", True), ("by_region", False),
    ]  # fmt: skip
    folded = tally("fold", "--all", "--json")
    assert [(each["name"], each["deltas"]) for each in folded.json["aggregates"]] == [("by_day", 1), ("by_region", 0)]
    assert tally("fold", "by_day", "--all").code == 2


def test_a_backfill_tells_how_far_it_is_in_lines_of_json(shop: psycopg.Connection[tuple[Any, ...]], tally: Run) -> None:
    app = ("--app", "shop:tally")
    tally("install", *app)
    shop.execute("ANALYZE orders")
    ran = tally("backfill", "by_region", *app, "--chunk-rows", "40", "--json")
    (done,) = ran.json["aggregates"]
    lines = [json.loads(line) for line in ran.err.splitlines() if line.startswith("{")]
    assert [(line["name"], line["what"], line["total"]) for line in lines] == [
        ("by_region", "rows", done["rows"])
    ] * len(lines)
    assert [line["done"] for line in lines] == [*range(40, done["rows"], 40), done["rows"]]
    assert all(line["rate"] > 0 for line in lines)
    assert [line["left_s"] for line in lines][-1] == 0


def test_an_interrupted_backfill_tells_how_to_go_on(
    shop: psycopg.Connection[tuple[Any, ...]], tally: Run, folder: Path
) -> None:
    app = ("--app", "shop:tally")
    tally("install", *app)
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "  # also in a job of nohup
    running = subprocess.Popen(
        [sys.executable, "-c", heard + MAIN, "backfill", *app, "--chunk-rows", "10", "--max-rows-per-second", "10"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
    )  # fmt: skip
    with running:
        assert running.stderr is not None
        while "rows" not in running.stderr.readline():  # the first chunk; the last would come a minute later
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 130
    assert "by_region: what is counted so far stays. To go on, run: tally backfill by_region --app shop:tally" in told
    assert "Not begun: by_day." in told
    assert tally("backfill", *app).code == 0
    assert tally("verify", *app).code == 0
