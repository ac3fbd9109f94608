"""Reads as SQLAlchemy expressions: what is refused when one is built, and what `direct_of` replaces."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Column, Executable, Integer, MetaData, Select, Table, exists, func, literal, select, true
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import ClauseElement

from tallystick import Tally, UsageError, direct_of
from tallystick.declare.reads import GroupReads

tally = Tally()
by_chat = tally.grouped(
    "by_chat", "SELECT chat_id, kind, count(*) AS messages, sum(size) AS bytes FROM message GROUP BY chat_id, kind"
)
totals = tally.grouped("totals", "SELECT count(*) AS n, max(size) AS largest FROM message")
chat = Table("chat", MetaData(), Column("id", Integer), Column("kind", Integer))

Build = Callable[[GroupReads], Any]


def compiled(statement: ClauseElement | Executable) -> str:
    """Text and parameters."""
    made = statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call, union-attr]
    return f"{made} {made.params}"


def in_subquery(reads: GroupReads) -> Select[Any]:
    inner = reads.get(chat_id=1, kind=2).subquery("inner")
    return select(inner.c.messages + 1).where(inner.c.bytes > 5)


def in_cte(reads: GroupReads) -> Select[Any]:
    cte = select(reads.table.c.chat_id, reads.table.c.messages).cte("some")
    return select(cte, chat.c.id).join(chat, chat.c.id == cte.c.chat_id)


def self_join(reads: GroupReads) -> Select[Any]:
    one, other = reads.table.alias("one"), aliased(reads.table, name="other")
    return select(one.c.messages, other.c.bytes).where(one.c.chat_id == other.c.chat_id)


def joined_lateral(reads: GroupReads) -> Select[Any]:
    found = reads.lateral(chat_id=chat.c.id, kind=chat.c.kind)
    return select(chat.c.id, found.c.messages).join(found, true()).order_by(found.c.bytes.desc())


def union(reads: GroupReads) -> Any:
    return select(reads.table.c.messages).union_all(select(reads.value("messages", chat_id=1, kind=None)))


READS: dict[str, Build] = {
    "table": lambda reads: select(reads.table),
    "columns": lambda reads: select(reads.table.c.chat_id, func.sum(reads.table.c.messages)).group_by(
        reads.table.c.chat_id
    ),
    "where": lambda reads: select(chat).where(
        exists().where(reads.table.c.chat_id == chat.c.id, reads.table.c.messages > 3)
    ),
    "join": lambda reads: select(chat, reads.table).join(reads.table, reads.table.c.chat_id == chat.c.id, isouter=True),
    "get": lambda reads: reads.get(chat_id=1, kind=None),
    "value": lambda reads: reads.value("messages", chat_id=1, kind=2),
    "value selected": lambda reads: select(reads.value("bytes", chat_id=chat.c.id, kind=1).label("bytes"), chat.c.id),
    "value in where": lambda reads: select(chat.c.id).where(reads.value("messages", chat_id=chat.c.id, kind=1) > 2),
    "several values": lambda reads: select(
        reads.value("messages", chat_id=1, kind=1), reads.value("bytes", chat_id=2, kind=2)
    ),
    "lateral": joined_lateral,
    "subquery": in_subquery,
    "cte": in_cte,
    "alias": self_join,
    "union": union,
}


def half(text: str) -> str:
    """Text over the direct half under the kept half's names."""
    return text.replace("__direct", "")


def same(one: str, other: str) -> bool:
    """Whether two texts read the same tables in the same way; an alias keeps the name that it was made under."""
    tables = [re.findall(r"tally\.\w+", text) for text in (one, other)]
    return tables[0] == tables[1] and half(one) == half(other)


@pytest.mark.parametrize("build", READS.values(), ids=READS)
def test_direct_of_is_the_same_read_over_the_source(build: Build) -> None:
    read = build(by_chat)
    before = compiled(read)
    direct = compiled(direct_of(read))
    assert "by_chat__direct" in direct
    assert "by_chat__direct" not in before
    assert half(direct) == before
    assert same(direct, compiled(build(by_chat.direct)))
    assert compiled(read) == before, "the read itself stays as it was"


def test_direct_of_a_ranking_reads_the_direct_view() -> None:
    views = re.findall(r"tally\.by_chat\w*", compiled(direct_of(by_chat.top("messages", 3))))
    assert set(views) == {"tally.by_chat__direct"}


def test_direct_of_changes_nothing_else() -> None:
    read = select(chat.c.id, literal(1)).where(chat.c.kind == 2)
    assert compiled(direct_of(read)) == compiled(read)
    assert compiled(direct_of(by_chat.direct.get(chat_id=1, kind=2))) == compiled(by_chat.direct.get(chat_id=1, kind=2))


def test_direct_of_several_aggregates() -> None:
    read = select(totals.value("n"), by_chat.value("messages", chat_id=1, kind=1))
    expected = select(totals.direct.value("n"), by_chat.direct.value("messages", chat_id=1, kind=1))
    assert same(compiled(direct_of(read)), compiled(expected))


def test_direct_of_an_aggregate_with_a_long_name() -> None:
    long = Tally().grouped("m" * 60, "SELECT a, count(*) AS n FROM t GROUP BY a")
    assert compiled(direct_of(long.get(a=1))) == compiled(long.direct.get(a=1)) != compiled(long.get(a=1))


@pytest.mark.parametrize(
    "read",
    [
        lambda reads, key: reads.get(**key),
        lambda reads, key: reads.value("messages", **key),
        lambda reads, key: reads.lateral(**key),
    ],
    ids=["get", "value", "lateral"],
)
@pytest.mark.parametrize(
    ("key", "given"),
    [
        ({}, "none"),
        ({"chat_id": 1}, "chat_id"),
        ({"chat_id": 1, "kind": 2, "size": 3}, "chat_id, kind, size"),
        ({"chat_id": 1, "messages": 2}, "chat_id, messages"),
    ],
)
def test_group_keys_are_all_given(read: Callable[[GroupReads, Any], Any], key: dict[str, int], given: str) -> None:
    for reads in (by_chat, by_chat.direct):
        with pytest.raises(UsageError) as caught:
            read(reads, key)
        assert caught.value.message == (
            f'aggregate "by_chat": expected a value for its group keys (chat_id, kind), got {given}.'
        )
        assert caught.value.hint == "Pass each group key by name."


def test_totals_have_no_group_key() -> None:
    with pytest.raises(UsageError, match=r"group keys \(none\), got chat_id"):
        totals.get(chat_id=1)


@pytest.mark.parametrize(
    "read",
    [lambda reads: reads.value("size", chat_id=1, kind=1), lambda reads: reads.top("size", 3)],
    ids=["value", "top"],
)
def test_unknown_measure(read: Build) -> None:
    for reads in (by_chat, by_chat.direct):
        with pytest.raises(UsageError) as caught:
            read(reads)
        assert caught.value.message == 'aggregate "by_chat": measure "size" is unknown (has: messages, bytes).'


@pytest.mark.parametrize("k", [0, -1])
def test_top_of_none(k: int) -> None:
    with pytest.raises(UsageError) as caught:
        by_chat.top("messages", k)
    assert str(caught.value) == f'aggregate "by_chat": top of {k} groups. Ask for 1 or more.'


def test_group_key_is_no_measure() -> None:
    with pytest.raises(UsageError, match='measure "chat_id" is unknown'):
        by_chat.top("chat_id", 1)


def test_table_has_the_declared_columns() -> None:
    for reads, name in ((by_chat, "by_chat"), (by_chat.direct, "by_chat__direct")):
        assert reads.table.fullname == f"tally.{name}"
        assert reads.table.c.keys() == ["chat_id", "kind", "messages", "bytes"]


def test_group_key_named_like_a_parameter() -> None:
    odd = Tally().grouped("odd", 'SELECT self, measure, count(*) AS n FROM t GROUP BY "self", measure')
    key = {"self": 1, "measure": 2}
    for read in (odd.get(**key), select(odd.value("n", **key)), select(odd.lateral(**key))):
        assert "odd" in compiled(read)
