"""The examples as programs: exit codes, and that nothing of theirs stays in the database."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import URL, Engine, MetaData, Table, inspect
from sqlalchemy.schema import CreateSchema

from place import own_schemas
from tests.conftest import Connect

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = {
    "chat.py": "example_chat",
    "events.py": "example_events",
    "games.py": "example_games",
    "trading.py": "example_trading",
}


def ran(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / program), *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def shown(database: URL) -> str:
    """As a user writes it, without the driver."""
    return database.set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_it_runs_and_removes_what_it_made(program: str, database: URL, engine: Engine) -> None:
    before = inspect(engine).get_schema_names()
    done = ran(program, "--scale", "0.01", "--dsn", shown(database))
    assert (done.returncode, done.stderr) == (0, "")
    assert "exact" in done.stdout
    assert inspect(engine).get_schema_names() == before


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_schema_of_somebody_else_is_left_alone(program: str, database: URL, engine: Engine) -> None:
    schema = PROGRAMS[program]
    with engine.begin() as connection:
        connection.execute(CreateSchema(schema))
    refused = ran(program, "--dsn", shown(database))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f'a schema "{schema}" that no example has made' in refused.stderr
    assert schema in inspect(engine).get_schema_names()


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_second_one_is_refused_while_the_first_runs(program: str, database: URL, connect: Connect) -> None:
    key = f"tallystick {PROGRAMS[program]}"
    connect().execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (key,))
    refused = ran(program, "--dsn", shown(database))
    assert refused.returncode == 1
    assert "is running in the database already" in refused.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_database_that_is_not_there_is_named(program: str, database: URL) -> None:
    refused = ran(program, "--dsn", shown(database.set(database="nowhere")))
    assert refused.returncode == 3
    assert "cannot connect" in refused.stderr


def test_what_is_no_url_is_refused() -> None:
    refused = ran("games.py", "--dsn", "dbname=shop")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert '"dbname=shop" is no URL' in refused.stderr


def test_what_a_killed_run_has_left_is_dropped(engine: Engine) -> None:
    with own_schemas(engine, "example_a", "example_b"):
        Table("left", MetaData(), schema="example_b").create(engine)
        with own_schemas(engine, "example_a", "example_b"):
            assert inspect(engine).get_table_names(schema="example_b") == []
        assert {"example_a", "example_b"}.isdisjoint(inspect(engine).get_schema_names())
