"""examples/games.py on little data: every number is also counted here, from the tables and from what was committed."""

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from sqlalchemy import Engine, event

import games
from crowd import crowd
from place import own_schemas
from tallystick import direct_of
from tests.conftest import Connect

SCALE = 0.02
IN_TABLES = """
SELECT (SELECT count(*) FROM example_games.game),
       (SELECT count(*) FROM example_games.game WHERE state = 'completed'),
       (SELECT count(*) FROM example_games.game WHERE state = 'playing'),
       (SELECT count(*) FROM example_games.message) + (SELECT count(*) FROM example_games.archived_message)
"""


@pytest.fixture
def schemas(engine: Engine) -> Iterator[None]:
    with own_schemas(engine, games.SCHEMA, games.TALLY_SCHEMA):
        yield


def test_every_answer_is_exact(engine: Engine, schemas: None, connect: Connect) -> None:
    printed = io.StringIO()
    report = games.run(engine, Console(file=printed, width=200), scale=SCALE)
    assert report.is_exact

    played = report.played
    assert played["committed"] >= games.PLAYERS * round(games.TURNS * SCALE)
    assert played["rolled back"] > 0
    assert report.found == {
        "games": 1000 + played["games"],
        "completed": 700 + played["completed"],
        "playing": 100 + played["playing"],
        "messages": 4000 + played["messages"],
        "waves": played["waves"],
    }
    assert report.archived > 0

    (counted,) = connect().execute(IN_TABLES).fetchall()
    found = report.found
    assert counted == (found["games"], found["completed"] + 1, found["playing"], found["messages"] + 3)
    for way, answer in report.answers.items():
        assert tuple(answer.values())[:4] == counted, way
        assert answer.get("waves", found["waves"]) == found["waves"], way
    assert list(report.answers) == [
        "kept", "rolled back", "resumed", "direct_of(read)", "uninstalled",
    ]  # fmt: skip

    assert {check.name: check.diff for check in report.drifted} == {
        "games": 0, "games completed": 0, "games playing": 0, "chat_messages": -3,
    }  # fmt: skip
    assert [check.is_exact for check in report.mended] == [True] * 4
    assert "DRIFT" in printed.getvalue()


def test_nothing_is_left_on_the_tables_when_it_is_uninstalled(engine: Engine, schemas: None, connect: Connect) -> None:
    games.run(engine, Console(quiet=True), scale=0.001)
    connection = connect()
    triggers = connection.execute("SELECT tgname FROM pg_trigger WHERE tgrelid = 'example_games.game'::regclass")
    assert triggers.fetchall() == []
    left = connection.execute("SELECT viewname FROM pg_views WHERE schemaname = 'example_games_tally' ORDER BY 1")
    assert left.fetchall() == [("emotes",)]


def test_a_report_of_a_difference_is_not_exact(engine: Engine, schemas: None) -> None:
    report = games.run(engine, Console(quiet=True), scale=0.001)
    assert report.is_exact
    assert not replace(report, verified=False).is_exact
    assert not replace(report, after=report.drifted).is_exact
    assert not replace(report, drifted=report.mended).is_exact
    assert not replace(report, expected={**report.expected, "waves": -1}).is_exact
    assert not replace(report, answers={**report.answers, "kept": {}}).is_exact


def test_the_statistics_are_one_statement(engine: Engine, schemas: None) -> None:
    games.fill(engine, scale=SCALE)
    games.tally.install(engine)
    games.tally.backfill(engine)
    statements: list[str] = []

    def note(*given: object) -> None:
        statements.append(str(given[2]))

    event.listen(engine, "before_cursor_execute", note)
    found = games.statistics(engine, games.system_statistics())
    event.remove(engine, "before_cursor_execute", note)
    assert len(statements) == 1
    assert found == {"games": 1000, "completed": 700, "playing": 100, "messages": 4000, "waves": 0}
    assert games.statistics(engine, direct_of(games.system_statistics())) == found


def test_the_switch_tells_readers_where_to_read(engine: Engine, schemas: None) -> None:
    games.fill(engine, scale=SCALE)
    games.tally.install(engine)
    games.tally.backfill(engine)
    found = []
    for switch in (games.tally.rollback, games.tally.resume):
        switch(engine, only=["games"])
        found.append({each.name: each.serving for each in games.tally.status(engine)}["games"])
    assert found == ["direct", "kept"]


def test_answers_beside_players_are_those_of_one_snapshot(engine: Engine, schemas: None) -> None:
    games.fill(engine, scale=SCALE)
    games.tally.install(engine)
    games.tally.backfill(engine)
    compared = []
    with crowd(engine, games.play, users=4, least=20) as players:
        while not players.has_ended(within_s=0):
            compared += games.both_halves(engine)
            players.end()
    assert len(compared) >= 4
    assert [check for check in compared if not check.is_exact] == []
