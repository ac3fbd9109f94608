"""The registry, declarations from select() and from text, and their fingerprints."""

from datetime import date
from decimal import Decimal

import pytest
from sqlalchemy import Boolean, Column, Date, Integer, MetaData, Numeric, Table, Text, func, select
from sqlalchemy import text as sql_text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.elements import ColumnElement

from tallystick import DeclarationError, Tally, UsageError

TEXT = "SELECT a, count(*) AS n FROM t GROUP BY a"
FINGERPRINT = "8fbd96059823618c1eda10da9c62a26d1d19d236f216d29ec4d91573e634f1ca"
FINGERPRINT_OF_SELECT = "f8c44598b6e5149b05abc245c949190887e2af074b6d2ed22ec7faec3e535ffb"

t = Table(
    "t",
    MetaData(),
    Column("a", Integer),
    Column("b", Text),
    Column("x", Numeric),
    Column("on", Date),
    Column("ok", Boolean),
)


class Base(DeclarativeBase):
    """Mapped classes of this module."""


class Message(Base):
    __tablename__ = "message"
    __table_args__ = ({"schema": "app"},)

    id: Mapped[int] = mapped_column(primary_key=True)
    chat_id: Mapped[int]
    body: Mapped[str | None]


DECLARED = select(t.c.a, func.count().label("n"), func.sum(t.c.x).label("s")).where(t.c.b == "it's").group_by(t.c.a)


def test_registry_holds_aggregates_by_name() -> None:
    tally = Tally(schema="kept")
    first, second = tally.grouped("first", TEXT), tally.grouped("second", DECLARED)
    assert (tally["first"], tally["second"]) == (first, second)
    assert (list(tally), len(tally)) == ([first, second], 2)
    assert (first.name, first.schema, first.definition) == ("first", "kept", TEXT)
    assert repr(first) == f"<Grouped kept.first: {TEXT!r}>"
    assert Tally().schema == "tally"


def test_duplicate_name() -> None:
    tally = Tally()
    first = tally.grouped("m", TEXT)
    with pytest.raises(DeclarationError) as caught:
        tally.grouped("m", DECLARED)
    assert str(caught.value) == 'aggregate "m" is declared twice. Give each aggregate its own name.'
    assert list(tally) == [first]


def test_unknown_name() -> None:
    tally = Tally()
    with pytest.raises(UsageError) as caught:
        tally["m"]
    assert str(caught.value) == 'aggregate "m" is not declared (declared: none). Check the name.'
    tally.grouped("first", TEXT)
    tally.grouped("second", TEXT)
    with pytest.raises(UsageError, match=r'"m" is not declared \(declared: first, second\)'):
        tally["m"]


def test_a_refused_declaration_is_not_registered() -> None:
    tally = Tally()
    with pytest.raises(DeclarationError):
        tally.grouped("m", "SELECT 1")
    assert len(tally) == 0


@pytest.mark.parametrize("declared", [None, 7, t, sql_text(TEXT)])
def test_neither_select_nor_text(declared: object) -> None:
    with pytest.raises(DeclarationError) as caught:
        Tally().grouped("m", declared)  # type: ignore[arg-type]
    expected = f'aggregate "m": expected a Select or a SQL string, got {type(declared).__name__}.'
    assert caught.value.message == expected
    assert caught.value.hint == "Pass sqlalchemy.select(…).group_by(…) or the query's text."


def test_text_loses_its_ending_only() -> None:
    assert Tally().grouped("m", f"\n {TEXT} ; \n").definition == TEXT


def test_select_becomes_text_with_literals() -> None:
    shape = Tally().grouped("m", DECLARED).shape
    assert (shape.source, shape.columns, shape.where) == ("t", ("a", "n", "s"), "t.b = 'it''s'")


def test_mapped_class() -> None:
    declared = select(Message.chat_id, func.count(Message.body).label("n")).group_by(Message.chat_id)
    aggregate = Tally().grouped("m", declared)
    assert aggregate.shape.source == "app.message"
    assert aggregate.shape.keys[0].expression == "app.message.chat_id"
    assert isinstance(aggregate.table.c.chat_id.type, Integer)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (t.c.b == "50% of a:b", "t.b = '50% of a:b'"),
        (t.c.b == "C:\\temp", "t.b = 'C:\\temp'"),
        (t.c.x > Decimal("1.50"), "t.x > 1.50"),
        (t.c.on >= date(2024, 1, 31), "t.\"on\" >= '2024-01-31'"),
        (t.c.a.in_([1, 2]), "t.a IN (1, 2)"),
        (t.c.b.is_(None), "t.b IS NULL"),
        (t.c.b.is_distinct_from("x"), "t.b IS DISTINCT FROM 'x'"),
        (t.c.ok, "t.ok"),
    ],
)
def test_literals(condition: ColumnElement[bool], expected: str) -> None:
    """PostgreSQL reads a backslash in '…' as itself, so it must not be doubled."""
    declared = select(t.c.a, func.count()).where(condition).group_by(t.c.a)
    assert Tally().grouped("m", declared).shape.where == expected


def test_filter_and_labels() -> None:
    declared = select(
        func.date_trunc("day", t.c.on).label("Day"),
        func.count(t.c.b.distinct()).filter(t.c.x > 0).label("different"),
    ).group_by("Day")
    shape = Tally().grouped("m", declared).shape
    assert shape.columns == ("Day", "different")
    assert (shape.measures[0].distinct, shape.measures[0].filter) == (True, "t.x > 0")


def test_a_value_that_has_no_literal() -> None:
    with pytest.raises(DeclarationError) as caught:
        Tally().grouped("m", select(func.count()).select_from(t).where(t.c.x == object()))
    assert caught.value.message.startswith('aggregate "m": ')
    assert caught.value.hint == "Use literal values, or declare the aggregate as a SQL string."


def test_fingerprint_is_of_the_definition() -> None:
    """It is stored in databases: in every process, and with every version of SQLAlchemy, it must be the same."""
    tally = Tally()
    assert tally.grouped("a", TEXT).fingerprint == tally.grouped("b", f" {TEXT};").fingerprint == FINGERPRINT
    assert tally.grouped("c", DECLARED).fingerprint == FINGERPRINT_OF_SELECT


def test_only_takes_a_list() -> None:
    tally = Tally()
    tally.grouped("m", TEXT)
    with pytest.raises(UsageError) as caught:
        tally._chosen("m")
    assert str(caught.value) == "only='m' is a string. Pass a list: only=['m']."


@pytest.mark.parametrize("schema", ["", "s" * 64, "a\0b", "pg_kept"])
def test_schema_that_postgresql_does_not_take(schema: str) -> None:
    with pytest.raises(UsageError):
        Tally(schema=schema)
