"""The benchmarks run and report what they promise; with sizes this small, the numbers mean nothing."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import URL

from tallystick.bench import (
    backfill,
    counter,
    fold,
    ordered,
    ordered_reads,
    ordered_upkeep,
    ordered_writes,
    pgbench,
    place,
    read,
    verify,
    write,
)
from tallystick.errors import MissingPrivilege, TallyError, UsageError
from tests.conftest import Connect
from tests.servers import Server

WRITE = write.Sizes(rounds=1, seconds=1, clients=2, updated_rows=100, bulk_rounds=1, bulk_rows=1_000)
READ = read.Sizes(2_000, 200, 500, deltas=50, changed=60, calls=3, rounds=2)
FOLD = fold.Sizes(rounds=1, groups=10, deltas=50, distinct=20, backlogs=(20, 40))
COUNTER = counter.Sizes(rounds=1, seconds=1, clients=2, calls=3)
VERIFY = verify.Sizes(rows=3_000, groups=50, deltas=60, rounds=2)
BACKFILL = backfill.Sizes(rows=2_000, groups=50, rounds=1, clients=2, seconds=1, chunk_rows=500)

ORDERED = ordered.Sizes(
    ordered_reads.Sizes(3_000, 1_500, few=20, many=50, batch=3, calls=3, rounds=2),
    ordered_upkeep.Sizes(rounds=1, deltas=50),
    ordered_writes.Sizes(rounds=1, seconds=1, clients=2, bulk_rounds=1, bulk_rows=1_000),
)


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """The server's own database: the benchmark makes and drops one beside it."""
    yield server.url("postgres").render_as_string(hide_password=False)
    with server.connect(autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS tally_bench WITH (FORCE)")


@pytest.fixture
def admin(server: Server) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    with server.connect(autocommit=True) as connection:
        yield connection


def checked(result: dict[str, object], bench: str) -> dict[str, dict[str, Any]]:
    """The figures by name, after a look at the shape of the report."""
    report: dict[str, Any] = json.loads(json.dumps(result))
    assert report["bench"] == bench
    assert {"cpu", "cores", "memory_gb", "postgresql", "settings", "driver"} <= set(report["machine"])
    assert {"fsync", "synchronous_commit"} <= set(report["machine"]["settings"])
    assert report["figures"]
    for figure in report["figures"]:
        assert {"name", "value", "unit", "spread", "rounds", "target", "bound", "met"} <= set(figure)
    for figure in [*report["figures"], *report["information"]]:
        assert figure["spread"][0] <= figure["value"] <= figure["spread"][1]
        if figure["unit"] == "ratio":
            assert figure["baseline_median"] > 0
            assert figure["candidate_median"] > 0
    return {figure["name"]: figure for figure in report["figures"]}


def remains(connection: psycopg.Connection[tuple[Any, ...]]) -> bool:
    return bool(connection.execute("SELECT FROM pg_database WHERE datname = 'tally_bench'").fetchall())


def test_write(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    lines: list[str] = []
    figures = checked(write.measure(url, WRITE, quick=True, progress=lines.append), "write")
    assert figures["three inserts per transaction over 20 groups, deadlocks"]["value"] == 0
    assert {figure["bound"] for figure in figures.values()} == {"at least", "at most"}
    assert len(lines) == len(figures) + 2
    assert not remains(admin)


def test_read(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    figures = checked(read.measure(url, READ, quick=True, progress=lambda _: None), "read")
    assert {figure["target"] for figure in figures.values()} == {1, 3, 5, 100}
    assert not remains(admin)


def test_verify(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    result = verify.measure(url, VERIFY, quick=True, progress=lambda _: None)
    figures = checked(result, "verify")
    assert [(figure["target"], figure["bound"]) for figure in figures.values()] == [(1.5, "at most")] * 2
    information: Any = result["information"]
    assert [figure["unit"] for figure in information] == ["ms", "groups per second"]
    assert all(figure["value"] > 0 for figure in information)
    assert not remains(admin)


def test_backfill(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    figures = checked(backfill.measure(url, BACKFILL, quick=True, progress=lambda _: None), "backfill")
    assert {(figure["target"], figure["bound"]) for figure in figures.values()} == {(5, "at most"), (0.85, "at least")}
    assert not remains(admin)


def test_fold(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    result = fold.measure(url, FOLD, quick=True, progress=lambda _: None)
    figures = checked(result, "fold")
    assert {figure["unit"] for figure in figures.values()} <= {"deltas per second", "MB"}
    assert result["notes"]
    assert not remains(admin)


def test_counter(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    lines: list[str] = []
    result = counter.measure(url, COUNTER, quick=True, progress=lines.append)
    figures = checked(result, "counter")
    assert sorted((figure["target"], figure["bound"], figure["unit"]) for figure in figures.values()) == [
        (0.5, "at least", "ratio"), (1, "under", "ms"), (3, "at least", "ratio"), (3, "at least", "ratio"),
    ]  # fmt: skip
    information: Any = result["information"]
    assert [figure["unit"] for figure in information] == ["adds per second"] * 3
    assert all(figure["value"] > 0 for figure in information)
    assert len(lines) == len(figures) + 3
    assert not remains(admin)


def test_ordered(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    lines: list[str] = []
    result = ordered.measure(url, ORDERED, quick=True, progress=lines.append)
    figures = checked(result, "ordered")
    assert sorted((figure["target"], figure["bound"], figure["unit"]) for figure in figures.values()) == [
        (0.333, "at most", "ratio"), (0.6, "at least", "ratio"), *[(1, "under", "ms")] * 5,
        *[(1.5, "at most", "ratio")] * 2, (1.8, "at most", "ratio"), *[(3, "under", "ms")] * 5,
        *[(100, "at least", "ratio")] * 4,
    ]  # fmt: skip
    information: Any = result["information"]
    assert [figure["unit"] for figure in information] == [*["ratio"] * 3, *["deltas per second"] * 2]
    assert all(figure["value"] > 0 for figure in information)
    assert result["notes"]
    assert len(lines) == len(figures) + len(information) + 4
    assert not remains(admin)


def test_a_database_that_is_not_ours_is_left_alone(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    admin.execute("CREATE DATABASE tally_bench")
    with pytest.raises(UsageError, match="was not made by it"):
        fold.measure(url, FOLD, quick=True, progress=lambda _: None)
    assert remains(admin)


def test_what_a_killed_run_left_is_dropped(url: str, admin: psycopg.Connection[tuple[Any, ...]]) -> None:
    admin.execute("CREATE DATABASE tally_bench")
    admin.execute("COMMENT ON DATABASE tally_bench IS 'made and dropped by tally bench'")
    with place.own_database(url):
        assert remains(admin)
    assert not remains(admin)


def test_role_without_createdb(database: URL, connect: Connect, make_role: Any) -> None:
    role = make_role()
    url = database.set(username=role).render_as_string(hide_password=False)
    with pytest.raises(MissingPrivilege, match="may not create the database tally_bench"):
        fold.measure(url, FOLD, quick=True, progress=lambda _: None)


def test_load_that_fails_says_why(engine: Any) -> None:
    load = pgbench.Load(pgbench.find(), engine, clients=1, seconds=1)
    with pytest.raises(TallyError, match='relation "message" does not exist'):
        load.rate("public", write.HOT)
