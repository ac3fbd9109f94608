"""What is told of an installation and its workers: metrics, `tally status --check`, `tally events`."""

import logging
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import URL, Engine

from tallystick import Tally
from tallystick.maintain.audit import audit_step
from tallystick.store import events
from tallystick.store.connection import transaction
from tests.commands import ORDERS, Run, ran
from tests.conftest import Connect
from tests.servers import Connection
from tests.workers import until, working

VERIFIED = """
INSERT INTO tally.event (what, aggregate, detail) VALUES ('verify', 'by_region', '{"status": "STATUS"}')
"""
Metrics = dict[tuple[str, ...], float]


@pytest.fixture
def app(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute(ORDERS)
    return connection


@pytest.fixture
def declared(app: Connection, engine: Engine) -> Tally:
    tally = Tally()
    tally.grouped("by_region", "SELECT region, count(*) AS n FROM public.orders GROUP BY region")
    tally.counter("clicks")
    tally.install(engine)
    tally.backfill(engine)
    return tally


@pytest.fixture
def tally(
    declared: Tally, database: URL, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run `tally` in a directory without an application."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLY_DSN", database.render_as_string(hide_password=False))
    return lambda *arguments: ran(capsys, *arguments)


@pytest.fixture
def address() -> str:
    """An address of the loopback that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        host, port = found.getsockname()
    return f"{host}:{port}"


def metrics(address: str) -> Metrics:
    """All samples by name and labels' values."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_of_a_worker(app: Connection, declared: Tally, database: URL, address: str) -> None:
    options = ("--interval", "0.05", "--backlog", "5", "--max-age", "3600", "--metrics-port", address, "--audit", "50%")
    with working(database, *options) as worker:
        found = metrics(address)
        assert found["tally_up",] == 1
        assert found["tally_backlog_rows", "by_region"] == 0
        assert found["tally_backlog_rows", "clicks"] == 0
        assert found["tally_phase", "by_region", "kept"] == 1
        assert found["tally_serving_kept", "by_region"] == 1
        app.execute("INSERT INTO orders (region) VALUES ('new'), ('newer')")
        until(lambda: metrics(address)["tally_backlog_age_seconds", "by_region"] > 0, "an age")
        assert metrics(address)["tally_backlog_rows", "by_region"] == 2
        app.execute("INSERT INTO orders (region) SELECT 'r' || i FROM generate_series(1, 5) AS i")
        until(lambda: metrics(address).get(("tally_folded_deltas_total", "by_region")) == 7, "the fold of both")
        found = metrics(address)
        assert found["tally_folds_total", "by_region"] == 1
        assert found["tally_fold_seconds_total", "by_region"] > 0
        assert found["tally_backlog_age_seconds", "by_region"] == 0
        assert [key[-1] for key in found if key[0] == "tally_worker_heartbeat_age_seconds"] == [str(worker.popen.pid)]
        app.execute("UPDATE tally.by_region__state SET n = n + 1 WHERE k1 = 'new'")
        until(lambda: metrics(address).get(("tally_drifted_groups_total", "by_region")), "the drift")
        app.execute("ALTER TABLE tally.by_region__state ADD CONSTRAINT broken CHECK (false) NOT VALID")
        app.execute("INSERT INTO orders (region) SELECT 'r' || i FROM generate_series(1, 5) AS i")
        until(lambda: metrics(address).get(("tally_failures_total", "by_region")), "the failure")
        assert worker.stop() < 5


def test_metrics_without_a_database(declared: Tally, address: str) -> None:
    nowhere = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=1, database="nowhere")
    with working(nowhere, "--metrics-port", address) as worker:
        worker.until_said("no work done", level="error")
        assert metrics(address)["tally_up",] == 0
        assert worker.stop() < 5


@pytest.mark.parametrize("wrong", ["nowhere", "127.0.0.1:0", "127.0.0.1:70000"])
def test_an_address_that_is_none(tally: Run, wrong: str) -> None:
    refused = tally("worker", "--metrics-port", wrong)
    assert refused.code == 2
    assert "no address for metrics" in refused.err


def test_an_address_that_is_taken(tally: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = tally("worker", "--metrics-port", f"127.0.0.1:{taken.getsockname()[1]}")
    assert refused.code == 2
    assert "cannot be served" in refused.err
    logger = logging.getLogger("tallystick")
    assert (logger.handlers, logger.propagate, logger.level) == ([], True, logging.NOTSET)  # as if it had not run


def test_status_shows_workers_and_ages(app: Connection, tally: Run, database: URL) -> None:
    assert tally("status", "--check").code == 0
    with working(database, "--interval", "0.05", "--max-age", "3600") as worker:
        until(lambda: tally("status", "--json").json["workers"], "the worker's row")
        app.execute("INSERT INTO orders (region) VALUES ('new')")
        until(lambda: app.execute("SELECT FROM tally.backlog").fetchall(), "that it is seen")
        found = tally("status", "--check", "--json")
        assert (found.code, found.json["healthy"], found.json["problems"]) == (0, True, [])
        assert [each["pid"] for each in found.json["workers"]] == [worker.popen.pid]
        by_name = {each["name"]: each for each in found.json["aggregates"]}
        assert by_name["by_region"]["age_s"] > 0
        assert by_name["clicks"]["age_s"] is None
        assert str(worker.popen.pid) in tally("status").out


@pytest.mark.parametrize(
    ("wrong", "mended", "said"),
    [
        (
            "INSERT INTO tally.worker (host, pid, version, seen_at) VALUES ('h', 7, '1', now() - interval '2 minutes')",
            "UPDATE tally.worker SET seen_at = now()",
            "workers: the last one, pid 7 on h, was not seen for",
        ),
        (
            "INSERT INTO tally.backlog VALUES ('by_region', now() - interval '10 minutes');"
            " INSERT INTO orders (region) VALUES ('x')",
            "UPDATE tally.backlog SET since = now()",
            "by_region: rows have waited to be folded for 60",
        ),
        (
            "INSERT INTO tally.schedule VALUES ('s', '0 0 * * *', 'verify', NULL, NULL, now() - interval '1 hour')",
            "UPDATE tally.schedule SET due_at = now()",
            "schedule s: was due at",
        ),
        (
            VERIFIED.replace("STATUS", "drift"),
            VERIFIED.replace("STATUS", "exact"),
            "by_region: a verification at",
        ),
        (
            "INSERT INTO orders (region) SELECT 'x' || i FROM generate_series(1, 100001) AS i",
            "SELECT tally.by_region__fold()",
            "by_region: 100,001 rows wait to be folded",
        ),
        (
            "ALTER TABLE orders DISABLE TRIGGER tally_by_region__update",
            "ALTER TABLE orders ENABLE ALWAYS TRIGGER tally_by_region__update",
            'by_region: trigger "tally_by_region__update" on public.orders is disabled',
        ),
    ],
    ids=["no worker", "age", "schedule", "drift", "backlog", "triggers"],
)
def test_a_check_ends_with_1_while_something_is_wrong(
    app: Connection, tally: Run, wrong: str, mended: str, said: str
) -> None:
    app.execute(wrong.encode())
    found = tally("status", "--check")
    assert found.code == 1
    assert said in found.out
    assert tally("status").code == 0, "without --check it is told, and no failure"
    assert tally("status", "--json").json["healthy"] is False
    app.execute(mended.encode())
    assert tally("status", "--check").code == 0


def test_events_tell_who_did_what(tally: Run, connect: Connect, database: URL) -> None:
    assert tally("schedule", "add", "midnight", "0 0 * * *", "reset", "clicks").code == 0
    last, first = (
        tally("events", "--limit", "1", "--json").json["events"][0],
        tally("events", "--json").json["events"][-1],
    )
    assert (last["what"], last["aggregate"], last["role"]) == ("schedule add", "clicks", "postgres")
    assert last["detail"] == {"schedule": "midnight", "cron": "0 0 * * *", "task": "reset", "key": None}
    assert (first["what"], first["aggregate"]) == ("install", "by_region")
    assert "schedule add" in tally("events").out
    assert "Nothing has been done yet" in tally("events", "--schema", "elsewhere").out


def test_a_drift_is_told_under_the_name_that_there_is(app: Connection, engine: Engine, declared: Tally) -> None:
    def drifting() -> list[str]:
        with transaction(engine, read_only=True) as cursor:
            return list(events.drifting(cursor, "tally"))

    query = declared["by_region"].definition
    renamed, changed = Tally(), Tally()
    renamed.grouped("per_region", query)
    changed.grouped("per_region", query.replace("count(*) AS n", "count(*) AS n, max(id) AS last"))
    app.execute("UPDATE tally.by_region__state SET n = n + 1")
    audit_step(engine, "tally", "by_region")
    assert drifting() == ["by_region"]
    renamed.rename(engine, "by_region", "per_region")
    assert drifting() == ["per_region"]
    changed.redefine(engine)
    assert drifting() == []
    app.execute("UPDATE tally.per_region__state SET n = n + 1")
    audit_step(engine, "tally", "per_region")
    assert drifting() == ["per_region"]
    changed.uninstall(engine)
    assert drifting() == []
