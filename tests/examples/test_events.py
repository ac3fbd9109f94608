"""examples/events.py on little data: numbers are counted here as well, in Python from the rows of the tables."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from math import ceil
from typing import Any

import pytest
from rich.console import Console
from sqlalchemy import Engine, event, func, insert, select

import events
from events import Event, Follow, Score
from place import own_schemas
from tallystick import direct_of
from verification import Step

SCALE = 0.01


@pytest.fixture
def schemas(engine: Engine) -> Iterator[None]:
    with own_schemas(engine, events.SCHEMA, events.TALLY_SCHEMA):
        yield


@pytest.fixture
def kept(engine: Engine, schemas: None) -> None:
    """An application with data, whose numbers are kept."""
    events.fill(engine, scale=SCALE)
    events.tally.install(engine)
    events.tally.backfill(engine)


def rows(engine: Engine, table: Any) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(table.__table__)))


def standing(engine: Engine) -> list[Any]:
    """The season's players, the first one first."""
    players = [each for each in rows(engine, Score) if each.season == events.SEASON]
    return sorted(players, key=lambda each: (-each.points, each.reached_at, each.user_id))


def test_every_answer_is_exact(engine: Engine, schemas: None) -> None:
    report = events.run(engine, Console(quiet=True), scale=SCALE)
    assert report.is_exact
    assert report.statistics["all time"] == 980
    assert report.statistics["follows"] == 500
    assert [step.found for step in report.lived] == [1, -1, 0, 1, -1, 0]
    assert report.worked["committed"] >= events.ONLINE
    assert len(report.beside) >= len(report.after) == 10
    of_user = [each for each in rows(engine, Event) if each.user_id == events.USER and each.deleted_at is None]
    assert report.found["all time"] == len(of_user)
    assert report.found["follows"] == sum(each.user_id == events.USER for each in rows(engine, Follow))
    assert report.newcomer == standing(engine)[0].user_id


def test_a_report_of_a_difference_is_not_exact(engine: Engine, schemas: None) -> None:
    report = events.run(engine, Console(quiet=True), scale=0.001)
    assert report.is_exact
    assert not replace(report, verified=False).is_exact
    assert not replace(report, statistics={**report.statistics, "upcoming": -1}).is_exact
    assert not replace(report, standing={**report.standing, "place": -1}).is_exact
    assert not replace(report, lived=[Step("a step", 1, 0)]).is_exact
    assert not replace(report, paged=report.best[1:]).is_exact
    assert not replace(report, newcomer=-1).is_exact
    assert not replace(report, expected={**report.expected, "follows": -1}).is_exact
    odd = [replace(check, direct=check.direct + 1) for check in report.after]
    assert not replace(report, beside=odd).is_exact
    assert not replace(report, after=odd).is_exact


def test_all_statistics_of_a_user_are_one_statement(engine: Engine, kept: None) -> None:
    statements: list[str] = []

    def note(*given: object) -> None:
        statements.append(str(given[2]))

    with engine.begin() as connection:
        now = connection.execute(select(func.now())).scalar_one()
        # The ends of a week, and what lies a microsecond outside.
        for age in (timedelta(0), timedelta(days=7), timedelta(days=7, microseconds=1)):
            connection.execute(
                insert(Event).values(user_id=events.USER, created_at=now - age, start_at=now - age, minutes=10)
            )
        event.listen(engine, "before_cursor_execute", note)
        found = connection.execute(events.user_statistics(events.USER)).mappings().one()
        event.remove(engine, "before_cursor_execute", note)
        direct = connection.execute(direct_of(events.user_statistics(events.USER))).mappings().one()
    assert len(statements) == 1
    assert found == direct
    mine = [each for each in rows(engine, Event) if each.user_id == events.USER and each.deleted_at is None]
    upcoming = [each.minutes for each in mine if each.start_at >= now]
    assert found == {
        "captures in 7 days": sum(now - timedelta(days=7) <= each.created_at <= now for each in mine),
        "upcoming": len(upcoming),
        "minutes upcoming": sum(upcoming),
        "all time": 983,
        "follows": 500,
    }
    assert 0 < len(upcoming) < 983


def test_places_and_percentiles_are_those_of_the_sorted_players(engine: Engine, kept: None) -> None:
    players = standing(engine)
    assert len({(each.points, each.reached_at) for each in players}) < len(players)
    with engine.connect() as connection:
        for index in (0, 1, 99, 100, 500, len(players) - 1):
            user_id = players[index].user_id
            found = connection.execute(select(*events.standing_of(user_id).values())).one()
            at = connection.execute(events.board.at(events.SEASON, offset=index)).one()
            assert at.user_id == user_id
            assert tuple(found) == (
                index + 1,
                len(players),
                *(players[ceil(len(players) * percent / 100) - 1].points for percent in (1, 10, 50)),
            )
        nobody = connection.execute(select(events.standing_of(events.NEWCOMER)["place"])).scalar_one()
    assert nobody is None


def test_pages_walk_through_all_players(engine: Engine, kept: None) -> None:
    found, cursor = list[int](), None
    with engine.connect() as connection:
        while page := connection.execute(events.board.page(events.SEASON, limit=300, after=cursor)).all():
            found += [each.user_id for each in page]
            cursor = page[-1].cursor
    assert found == [each.user_id for each in standing(engine)]


def test_a_newcomer_between_pages_repeats_nobody(engine: Engine, kept: None) -> None:
    before = [each.user_id for each in standing(engine)]
    assert [each.user_id for each in events.two_pages(engine)] == before[: 2 * events.PAGE]
    assert [each.user_id for each in standing(engine)] == [events.NEWCOMER, *before]


def test_points_move_a_player(engine: Engine, kept: None) -> None:
    last = standing(engine)[-1].user_id
    with engine.begin() as connection:
        events.score(connection, last, 100_000)
    assert standing(engine)[0].user_id == last
    with engine.connect() as connection:
        assert connection.execute(select(events.standing_of(last)["place"])).scalar_one() == 1
