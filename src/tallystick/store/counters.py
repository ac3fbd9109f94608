"""The table of installed counters, and what the operations on them ask of the database."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.text import Statement, canonical, conjunction, fill, literal
from tallystick.declare.counter import Counter
from tallystick.declare.names import internal_name
from tallystick.errors import NotInstalled
from tallystick.store.aggregates import is_schema_installed
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import counter_functions


@dataclass(frozen=True, slots=True)
class InstalledCounter:
    """A counter as the database knows it."""

    name: str
    is_numeric: bool
    shards: int
    fingerprint: str
    definition: str | None
    is_resized: bool


def every(cursor: Cursor, schema: str) -> list[InstalledCounter]:
    """All installed counters by name; none where nothing is installed."""
    if not is_schema_installed(cursor, schema):
        return []
    query = "SELECT name, is_numeric, shards, fingerprint, definition, is_resized FROM {counter} ORDER BY name"
    return [InstalledCounter(*row) for row in cursor.execute(_fill(query, schema)).fetchall()]


def find(cursor: Cursor, schema: str, name: str) -> InstalledCounter | None:
    return next((found for found in every(cursor, schema) if found.name == name), None)


def get(cursor: Cursor, schema: str, name: str) -> InstalledCounter:
    """One installed counter.

    Raises:
        NotInstalled: there is none of this name.
    """
    found = find(cursor, schema, name)
    if found is None:
        raise NotInstalled(
            f'counter "{name}" is not installed in schema "{schema}".', hint=f"Run: tally install {name}"
        )
    return found


def registration(counter: Counter) -> list[Statement]:
    """Makes a new counter known, with the view that readers use."""
    view = Identifier(counter.schema, counter.name)
    settings = [
        literal(counter.name), _boolean(counter.is_numeric), literal(counter.shards), _shards_for(counter),
        literal(counter.definition), literal(counter.fingerprint),
    ]  # fmt: skip
    return [
        Statement(
            "the counter",
            fill(
                "INSERT INTO {counter} (name, is_numeric, shards, shards_for, definition, fingerprint)"
                " VALUES ({values})",
                counter=Identifier(counter.schema, "counter"), values=SQL(", ").join(settings),
            ),
        ),
        Statement(
            "its count, for readers",
            fill(
                "CREATE VIEW {view} AS SELECT s.key, sum(s.value){cast} AS count FROM {shard} AS s"
                " WHERE s.counter = (SELECT c.id FROM {counter} AS c WHERE c.name = {name})"
                " GROUP BY s.key HAVING sum(s.value) <> 0",
                view=view, cast=SQL("") if counter.is_numeric else SQL("::bigint"),
                shard=Identifier(counter.schema, "counter_shard"),
                counter=Identifier(counter.schema, "counter"), name=literal(counter.name),
            ),
        ),
        *direct_view(counter),
    ]  # fmt: skip


def direct_view(counter: Counter) -> list[Statement]:
    """The view of what the counter should be, if that is declared."""
    if counter.definition is None:
        return []
    return [
        Statement(
            "what it should count, from the source",
            fill(
                'CREATE VIEW {view} AS SELECT {key}::text COLLATE "C" AS key, sum(coalesce(d.n, 0))::numeric AS count'
                " FROM ({definition}) AS d ({columns}) GROUP BY 1 HAVING sum(coalesce(d.n, 0)) <> 0",
                view=_direct(counter.schema, counter.name), key=literal("") if counter.is_total else SQL("d.k"),
                definition=canonical(counter.definition), columns=SQL("n") if counter.is_total else SQL("k, n"),
            ),
        )
    ]  # fmt: skip


def changes(counter: Counter) -> list[Statement]:
    """Gives an installed counter the settings that are declared now; its values stay."""
    return [
        Statement(
            "the settings that are declared now",
            fill(
                "UPDATE {counter} SET shards = {shards}, shards_for = {shards_for}, definition = {definition},"
                " fingerprint = {fingerprint}, is_resized = true WHERE name = {name}",
                counter=Identifier(counter.schema, "counter"), shards=literal(counter.shards),
                shards_for=_shards_for(counter), definition=literal(counter.definition),
                fingerprint=literal(counter.fingerprint), name=literal(counter.name),
            ),
        ),
        Statement("the former query", fill("DROP VIEW IF EXISTS {v}", v=_direct(counter.schema, counter.name))),
        *direct_view(counter),
    ]  # fmt: skip


def functions(schema: str) -> Statement:
    """Makes the functions of all counters anew, so that their text names the schema as it is called now."""
    return Statement("functions that name this schema", counter_functions(schema))


def removal(schema: str, name: str) -> list[Statement]:
    """Removes a counter. Rows of it that others hold are left for `sweep`; nothing reads them any more."""
    return [
        Statement("its count", fill("DROP VIEW IF EXISTS {view}", view=Identifier(schema, name))),
        Statement("the query over the source", fill("DROP VIEW IF EXISTS {view}", view=_direct(schema, name))),
        Statement("the counter", _fill("DELETE FROM {counter} WHERE name = {name}", schema, name)),
        *sweep(schema),
    ]


def sweep(schema: str) -> list[Statement]:
    """Removes what counters that were removed have left; waits for nobody."""
    return [
        Statement(
            "rows of counters that are gone",
            _fill(
                "DELETE FROM {shard} WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM {shard} AS s WHERE NOT EXISTS"
                " (SELECT FROM {counter} AS c WHERE c.id = s.counter) FOR UPDATE SKIP LOCKED))",
                schema,
            ),
        ),
        Statement(
            "sets of counters that are gone",
            _fill(
                "DELETE FROM {set} WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM {set} AS s WHERE NOT EXISTS"
                " (SELECT FROM {counter} AS c WHERE c.id = s.counter) FOR UPDATE SKIP LOCKED))",
                schema,
            ),
        ),
    ]


def fold_keys(cursor: Cursor, schema: str, name: str, after: str | None, keys: int) -> tuple[int, int, int, str | None]:
    """Fold some keys: their number, rows before and afterwards, and the last of them."""
    row = one_row(cursor.execute(_function("SELECT * FROM {f}({a})", schema, "counter_fold", name, after, keys)))
    return row[0], row[1], row[2], row[3]


def settle_size(cursor: Cursor, schema: str, name: str) -> None:
    """Note that no row stands beyond the configured shards any more, if that is so and nobody holds the counter."""
    cursor.execute(
        _fill(
            "UPDATE {counter} SET is_resized = false WHERE id = (SELECT c.id FROM {counter} AS c WHERE c.name = {name}"
            " AND NOT EXISTS (SELECT FROM {shard} AS s WHERE s.counter = c.id AND"
            " s.shard >= coalesce((c.shards_for ->> s.key)::integer, c.shards)) FOR UPDATE SKIP LOCKED)",
            schema, name,
        )
    )  # fmt: skip


def hold(cursor: Cursor, schema: str, name: str) -> None:
    """Wait for sets of the counter, and let later ones wait, until the end of the transaction; adds go on."""
    cursor.execute(_fill("UPDATE {counter} SET backfills = backfills + 1 WHERE name = {name}", schema, name))


def differences(
    cursor: Cursor, schema: str, name: str, keys: list[str] | None = None, *, limit: int | None = None
) -> tuple[int, int, list[tuple[str | None, Decimal, Decimal]]]:
    """Both halves compared in one statement.

    Returns:
        Keys of the direct half, keys that differ, and some of these with actual and direct count, by key. With `keys`,
        only they are compared, and all of them are given.
    """
    wanted: Composable = SQL("true") if keys is None else fill("key = ANY ({k})", k=literal_list(keys))
    shown = SQL("actual <> direct") if keys is None else SQL("true")
    rows = cursor.execute(
        fill(
            "WITH halves AS MATERIALIZED (SELECT key, sum(actual) AS actual, sum(direct) AS direct FROM ("
            "SELECT key, value AS actual, 0 AS direct FROM {shard} WHERE counter = (SELECT id FROM {counter}"
            " WHERE name = {name}) UNION ALL SELECT key, 0, count FROM {view}{asked}) AS u WHERE {wanted} GROUP BY key)"
            " SELECT (SELECT count(*) FROM halves WHERE direct <> 0),"
            " (SELECT count(*) FROM halves WHERE actual <> direct), key, actual, direct FROM (SELECT) AS one LEFT JOIN"
            " (SELECT * FROM halves WHERE {shown} ORDER BY key LIMIT {limit}) AS f ON true ORDER BY key",
            shard=Identifier(schema, "counter_shard"), counter=Identifier(schema, "counter"), name=literal(name),
            view=_direct(schema, name), wanted=wanted, shown=shown, limit=literal(limit),
            asked=fill(" UNION ALL SELECT unnest({k}), 0, 0", k=literal_list(keys)) if keys is not None else SQL(""),
        )
    ).fetchall()  # fmt: skip
    found = [(row[2], row[3], row[4]) for row in rows if row[3] is not None]
    return rows[0][0], rows[0][1], found


def correct(cursor: Cursor, schema: str, name: str) -> int:
    """Add to each key what makes it equal to the direct query in the snapshot of this statement; number of keys.

    Whoever changes the source and the counter in one transaction is seen with both or with neither, so that adds which
    are under way are neither lost nor counted twice.
    """
    cursor.execute(
        _fill(
            "WITH c AS (SELECT * FROM {counter} WHERE name = {name}), halves AS MATERIALIZED (SELECT key, sum(n) AS n"
            " FROM (SELECT key, -value AS n FROM {shard} WHERE counter = (SELECT id FROM c)"
            " UNION ALL SELECT key, count FROM {direct}) AS u GROUP BY key HAVING sum(n) <> 0)"
            " SELECT {spread}(c.id, b.key, b.n, coalesce((c.shards_for ->> b.key)::integer, c.shards))"
            " FROM c, halves AS b",
            schema, name,
        )
    )  # fmt: skip
    return cursor.rowcount


def first_unfit(cursor: Cursor, schema: str, name: str, *, is_numeric: bool) -> tuple[str | None, Decimal] | None:
    """A key and total of the direct query that the counter cannot hold: without a key, or with a fraction or NaN."""
    unfit = [
        SQL("key IS NOT NULL"), SQL("octet_length(key) <= 2000"),
        SQL("count NOT IN ('NaN', 'Infinity', '-Infinity')"),
        SQL("true") if is_numeric else SQL("count = trunc(count)"),
    ]  # fmt: skip
    row = cursor.execute(
        fill("SELECT key, count FROM {v} WHERE NOT ({fit}) LIMIT 1", v=_direct(schema, name), fit=conjunction(unfit))
    ).fetchone()
    return None if row is None else (row[0], row[1])


def reset(cursor: Cursor, schema: str, name: str, key: str | None) -> int:
    """Set a key to 0, or all keys that do not count 0, by the order of their bytes; how many keys."""
    keys = literal_list([key]) if key is not None else fill("ARRAY(SELECT key FROM {v})", v=Identifier(schema, name))
    cursor.execute(
        fill(
            "SELECT {f}({name}, k.key, 0)"
            ' FROM (SELECT key FROM unnest({keys}) AS u (key) ORDER BY key COLLATE "C") AS k',
            f=Identifier(schema, "counter_set"), name=literal(name), keys=keys,
        )
    )  # fmt: skip
    return cursor.rowcount


def keys(cursor: Cursor, schema: str, name: str) -> int:
    """Keys, counted by one look into the index for each, however many rows it has."""
    query = (
        "WITH RECURSIVE c AS (SELECT id FROM {counter} WHERE name = {name}), k AS ("
        "SELECT (SELECT min(s.key) FROM {shard} AS s WHERE s.counter = (SELECT id FROM c)) AS key"
        " UNION ALL SELECT (SELECT min(s.key) FROM {shard} AS s WHERE s.counter = (SELECT id FROM c)"
        ' AND s.key > k.key COLLATE "C") FROM k WHERE k.key IS NOT NULL) SELECT count(key) FROM k'
    )
    return int(one_row(cursor.execute(_fill(query, schema, name)))[0])


def fresh_rows(cursor: Cursor, schema: str, name: str) -> int:
    """Rows that no fold has seen."""
    query = "SELECT count(*) FROM {shard} WHERE counter = (SELECT id FROM {counter} WHERE name = {name}) AND is_fresh"
    return int(one_row(cursor.execute(_fill(query, schema, name)))[0])


def literal_list(values: list[str]) -> Composed:
    """An array of text, also an empty one."""
    return fill("ARRAY[{v}]::text[]", v=SQL(", ").join(literal(value) for value in values))


def _function(template: LiteralString, schema: str, function: str, name: str, after: str | None, keys: int) -> Composed:
    arguments = SQL(", ").join([literal(name), fill("{a}::text", a=literal(after)), literal(keys)])
    return fill(template, f=Identifier(schema, function), a=arguments)


def _direct(schema: str, name: str) -> Identifier:
    return Identifier(schema, internal_name(name, "direct"))


def _boolean(value: bool) -> SQL:
    return SQL("true") if value else SQL("false")


def _shards_for(counter: Counter) -> Composed:
    return fill("{j}::jsonb", j=literal(json.dumps(counter.shards_for, sort_keys=True)))


def _fill(template: LiteralString, schema: str, name: str = "") -> Composed:
    """No parameters beside quoted names: psycopg would take a % in them for a placeholder."""
    return fill(
        template,
        counter=Identifier(schema, "counter"), shard=Identifier(schema, "counter_shard"),
        set=Identifier(schema, "counter_set"), spread=Identifier(schema, "counter_spread"),
        direct=_direct(schema, name), name=literal(name),
    )  # fmt: skip
