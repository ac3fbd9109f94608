"""No database, an engine of another kind, an aggregate that is not there: what each operation says."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tallystick import NotInstalled, ServerUnavailable, Tally, UsageError


def every_operation(tally: Tally) -> list[Callable[[Any], object]]:
    return [
        tally.plan, tally.install, tally.backfill, tally.fold, tally.verify, tally.status, tally.doctor,
        tally.uninstall,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "where",
    [
        {"host": "127.0.0.1", "port": 1},
        {"host": "/nowhere", "port": 5432},
        {"host": "no-such-host.invalid", "port": 5432},
    ],
    ids=["port", "socket", "host"],
)
def test_unreachable_server(where: dict[str, Any]) -> None:
    query = {"host": where["host"]} if where["host"].startswith("/") else {}
    host = None if query else where["host"]
    url = URL.create(
        "postgresql+psycopg",
        "me",
        "hush-hush",
        host,
        where["port"],
        "postgres",
        query={"connect_timeout": "2", **query},
    )
    tally = Tally()
    tally.grouped("m", "SELECT count(*) AS n FROM t")
    for operation in every_operation(tally):
        with pytest.raises(ServerUnavailable) as caught:
            operation(create_engine(url, poolclass=NullPool))
        assert caught.value.message.startswith("cannot connect to postgresql+psycopg://me:***@")
        assert "hush-hush" not in str(caught.value)
        assert "\n" not in caught.value.message
        assert caught.value.exit_code == 3
        assert caught.value.hint


def test_database_that_does_not_exist(database: URL) -> None:
    engine = create_engine(database.set(database="nowhere"), poolclass=NullPool)
    with pytest.raises(ServerUnavailable, match='database "nowhere" does not exist'):
        Tally().status(engine)


@pytest.mark.parametrize("kind", ["sqlite", "async", "url", "none"])
def test_engine_of_another_kind(database: URL, kind: str) -> None:
    engines: dict[str, Callable[[], Any]] = {
        "sqlite": lambda: create_engine("sqlite://"),
        "async": lambda: create_async_engine(database),
        "url": lambda: database.render_as_string(),
        "none": lambda: None,
    }
    tally = Tally()
    tally.grouped("m", "SELECT count(*) AS n FROM t")
    got = {"sqlite": "sqlite", "async": "AsyncEngine", "url": "str", "none": "NoneType"}[kind]
    for operation in every_operation(tally):
        with pytest.raises(UsageError) as caught:
            operation(engines[kind]())
        assert caught.value.message == f"expected a synchronous engine over postgresql+psycopg, got {got}."
        assert caught.value.hint == 'Pass create_engine("postgresql+psycopg://…").'
        assert caught.value.exit_code == 2


def test_operations_on_what_is_not_installed(engine: Engine) -> None:
    tally = Tally()
    tally.grouped("m", "SELECT count(*) AS n FROM app.event")
    for operation in (tally.backfill, tally.fold, tally.verify, tally.uninstall):
        with pytest.raises(NotInstalled) as caught:
            operation(engine)
        assert str(caught.value) == 'aggregate "m" is not installed in schema "tally". Run: tally install m'
    with pytest.raises(UsageError, match=r'aggregate "x" is not declared \(declared: m\)'):
        tally.install(engine, only=["m", "x"])
    with pytest.raises(UsageError, match="only='m' is a string"):
        tally.install(engine, only="m")
