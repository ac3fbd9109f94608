"""Whatever a table, its columns, an aggregate and its schema are called: they are kept exactly, end to end."""

from collections.abc import Iterator
from itertools import count
from typing import LiteralString

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from psycopg import sql
from sqlalchemy import Engine, column, create_engine, func, select, table, true, values
from sqlalchemy.pool import NullPool

from tallystick import Tally
from tallystick.declare.names import checked_name
from tallystick.errors import DeclarationError
from tests.oracle import assert_exact
from tests.servers import Connection, Server

HOSTILE = (
    'we"ird', "semi; DROP TABLE x; --", "100%s", "%(x)s", "{0} {x} {}", "$tally$", "$1", "quo\'te", "back\\slash",
    "sp ace", "Ünïcödé ключ 表", "select", "group by", "(a)", "a.b", ":x", "?", "/*", "Upper", "new\nline", "x" * 63,
)  # fmt: skip
# Names that generated SQL has a use of its own for.
INTERNAL = (
    "tallystick_0",
    "k1",
    "x1",
    "n",
    "w",
    "narrow",
    "facet",
    "epoch",
    "old",
    "new",
    "oldtab",
    "newtab",
    "r",
    "g",
    "s",
)


class Place:
    """One database of one server, in which each example makes a schema of its own."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self.engine = engine
        self.connection = connection
        self.numbers = count(1)

    def run(self, statement: LiteralString, **names: str) -> None:
        identifiers = {each: sql.Identifier(name) for each, name in names.items()}
        self.connection.execute(sql.SQL(statement).format(**identifiers))


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    name = server.create_database(server.template("empty"))
    engine = create_engine(server.url(name), poolclass=NullPool)
    with server.connect(name, autocommit=True) as connection:
        yield Place(engine, connection)
    server.drop_database(name)


def _check(place: Place, source: str, key: str, number: str, aggregate: str, schema: str) -> None:
    """From declaration to removal, for a table `source` with columns `key` and `number`."""
    total, most = f"{number[:20]} sum", f"{key[:20]} max"
    names = {"home": f"home{next(place.numbers)}", "source": source, "key": key, "number": number}
    place.run("CREATE SCHEMA {home}", **names)
    place.run("CREATE TABLE {home}.{source} (id integer PRIMARY KEY, {key} text, {number} integer)", **names)
    place.run(
        "INSERT INTO {home}.{source} VALUES (1, 'a', 5), (2, 'a', 7), (3, NULL, NULL), (4, '$tally$', 1)", **names
    )
    sale = table(source, column(key), column(number), schema=names["home"])
    tally = Tally(schema=schema)
    kept = tally.grouped(
        aggregate,
        select(
            sale.c[key], func.sum(sale.c[number]).label(total), func.max(sale.c[number]).label(most),
            func.count(sale.c[number].distinct()).filter(sale.c[key] != "it's $tally$ {0} %s").label("numbers"),
        ).where(sale.c[key].is_distinct_from("a%s'\\")).group_by(sale.c[key]),
    )  # fmt: skip
    (planned,) = tally.plan(place.engine)
    assert planned.compiled is not None
    assert tally.install(place.engine) == [aggregate]
    assert_exact(place.engine, tally)
    tally.backfill(place.engine)
    place.run("UPDATE {home}.{source} SET {number} = {number} + 1, {key} = upper({key})", **names)
    place.run("INSERT INTO {home}.{source} VALUES (5, 'A', 9) ON CONFLICT (id) DO UPDATE SET {number} = 0", **names)
    place.run("DELETE FROM {home}.{source} WHERE id = 2", **names)
    assert_exact(place.engine, tally)
    tally.fold(place.engine)
    assert_exact(place.engine, tally)
    outer = values(column("wanted"), name="outer").data([("A",)])
    of_key = kept.lateral(**{key: outer.c.wanted})
    with place.engine.connect() as reader:
        assert reader.execute(kept.get(**{key: "A"})).one() == ("A", 15, 9, 2)
        assert reader.scalar(select(kept.value(total, **{key: "A"}))) == 15
        assert reader.execute(kept.top(total, 1)).one() == ("A", 15, 9, 2)
        assert reader.execute(select(of_key).select_from(outer).join(of_key, true())).one() == (15, 9, 2)
        assert reader.execute(kept.direct.get(**{key: "A"})).one() == ("A", 15, 9, 2)
    place.run("TRUNCATE {home}.{source}", **names)
    assert [report.status for report in tally.verify(place.engine)] == ["exact"]
    assert [(status.name, status.phase) for status in tally.status(place.engine)] == [(aggregate, "kept")]
    assert [finding for finding in tally.doctor(place.engine) if finding.level == "error"] == []
    assert tally.uninstall(place.engine) == [aggregate]
    place.run("DROP SCHEMA {home} CASCADE", **names)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_name_everywhere(place: Place, name: str) -> None:
    _check(place, source=name, key=f"{name[:60]} k", number=name, aggregate=name, schema=name)
    place.run("DROP SCHEMA {schema} CASCADE", schema=name)


@pytest.mark.parametrize("name", INTERNAL)
def test_name_of_ours_in_the_source(place: Place, name: str) -> None:
    _check(place, source=name, key=name, number=f"{name} 2", aggregate="plain", schema="tally")


identifiers = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=15)


def _may_be_called(aggregate: str) -> bool:
    """Which names are refused is asked in tests/unit; strings of the source itself are among those drawn."""
    try:
        checked_name(aggregate)
    except DeclarationError:
        return False
    return True


@given(st.lists(identifiers, min_size=5, max_size=5, unique=True))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names(place: Place, chosen: list[str]) -> None:
    source, key, number, aggregate, schema = chosen
    assume(_may_be_called(aggregate))
    assume(not schema.startswith("pg_") and "id" not in (key, number))
    assume(schema not in ("public", "information_schema"))
    _check(place, source, key, number, aggregate, schema)
    place.run("DROP SCHEMA {schema} CASCADE", schema=schema)
