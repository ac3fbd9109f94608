"""Fixtures for tests over PostgreSQL. A test that uses one runs on each server (ids pg18, pg15, ...)."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Protocol

import pytest
from hypothesis import settings
from sqlalchemy import URL, Engine, create_engine

from tests.servers import Connection, Release, Server, Servers, releases
from tests.stepping import Session

# The same examples in each run, so that a failure is told of the change that made it; `make soak` draws new ones.
settings.register_profile(
    "tests", derandomize=os.environ.get("HYPOTHESIS_PROFILE") != "soak", database=None, deadline=None, print_blob=True
)
settings.load_profile("tests")

RELEASES = releases()


class Connect(Protocol):
    """Open a connection to the test's database; `role` is what SET ROLE would set, `user` logs in."""

    def __call__(self, *, autocommit: bool = False, user: str = "postgres", role: str | None = None) -> Connection: ...


def pytest_report_header() -> str:
    return f"postgresql: {', '.join(map(str, RELEASES))}"


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """All servers of this run; each is started on first use."""
    running = Servers()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session", params=RELEASES, ids=lambda release: f"pg{release.major}")
def server(request: pytest.FixtureRequest, servers: Servers) -> Server:
    """A running server of each version in turn."""
    release: Release = request.param
    return servers.get(release)


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    """Name of the database that `database` copies; a conftest.py further down may override it."""
    return server.template("empty")


@pytest.fixture
def make_role(server: Server) -> Iterator[Callable[[], str]]:
    """Make a role that can log in; its name is new, and it is dropped after the test's database."""
    names: list[str] = []
    numbers = count(1)

    def make() -> str:
        name = f"role{next(numbers)}"
        server.create_role(name)
        names.append(name)
        return name

    yield make
    for name in names:
        server.drop_role(name)


@pytest.fixture
def database(server: Server, template: str, make_role: Callable[[], str]) -> Iterator[URL]:
    """URL of a database of the test's own, dropped at the end, before the roles of `make_role`."""
    name = server.create_database(template)
    yield server.url(name)
    server.drop_database(name)


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    """A SQLAlchemy engine as an application has it."""
    engine = create_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def connect(server: Server, database: URL) -> Iterator[Connect]:
    """Open psycopg connections to the test's database; they are closed, and so rolled back, at the end."""
    with ExitStack() as opened:

        def open_connection(*, autocommit: bool = False, user: str = "postgres", role: str | None = None) -> Connection:
            assert database.database is not None
            options = f"-c role={role}" if role else ""
            connection = server.connect(database.database, user=user, autocommit=autocommit, options=options)
            opened.callback(connection.close)
            return connection

        yield open_connection


@pytest.fixture
def session(connect: Connect) -> Iterator[Callable[[], Session]]:
    """Open sessions for stepped tests (tests/stepping.py), watched by one more connection."""
    watcher = connect(autocommit=True)
    with ExitStack() as opened:

        def open_session() -> Session:
            session = Session(connect(autocommit=True), watcher)
            opened.callback(session.close)
            return session

        yield open_session
