"""Copies of measures in a parent table: eventual, for ORDER BY and indexes; the view stays the exact answer.

A fold notes the keys of the groups that it changed in `x__mirror`, in its own transaction. Then `x__copy` brings a few
parents at a time up to date, each time in a short transaction of its own, so that nobody waits for more than that. A
parent that somebody has locked is passed over; its note stays. Copies are made one after the other (under the lock of
the fold), so that an older answer never replaces a newer one.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.folding import alone
from tallystick.compiler.layout import Layout, dotted
from tallystick.compiler.snapshot import Mirror
from tallystick.compiler.text import SETTINGS, Statement, canonical, comma, conjunction, fill, private

_PARENT, _KEPT, _NOTE = SQL("p"), SQL("v"), SQL("m")


def mirror_table(layout: Layout) -> Statement:
    """The notes. A serial number lets a pass over them go forward only."""
    columns = [SQL("id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY"), *layout.key_definitions()]
    unlogged = SQL("UNLOGGED ") if layout.snapshot.source.unlogged else SQL("")
    sql = fill(
        "CREATE {unlogged}TABLE {t} ({c})", unlogged=unlogged, t=layout.object("mirror"), c=SQL(", ").join(columns)
    )
    return Statement("keys of groups whose copies are out of date", sql)


def mirror_statements(layout: Layout, mirror: Mirror) -> Iterator[Statement]:
    """`x__note(skip_existing)` and `x__copy(after, most)`."""
    parents, notes = canonical(mirror.table), layout.object("mirror")
    keys = comma(dotted(_PARENT, Identifier(name)) for name in mirror.keys)
    empty = SQL(" OR ").join(
        fill("{c} IS NULL", c=dotted(_PARENT, Identifier(name))) for name in mirror.columns.values()
    )
    yield Statement(
        "notes all parents, or those that have no value yet; returns how many",
        fill(
            "CREATE FUNCTION {f}(skip_existing boolean) RETURNS bigint LANGUAGE sql {settings}\n"
            "BEGIN ATOMIC\n"
            "  WITH noted AS (INSERT INTO {notes} ({k}) SELECT {keys} FROM {parents} AS p"
            " WHERE NOT skip_existing OR {empty} RETURNING 1)\n  SELECT count(*) FROM noted;\nEND",
            f=layout.object("note"), settings=SETTINGS, notes=notes, k=comma(layout.keys), keys=keys,
            parents=parents, empty=empty,
        ),
    )  # fmt: skip
    yield Statement(
        "brings the parents of some notes up to date; returns the last note seen, notes done, and notes left",
        fill(
            "CREATE FUNCTION {f}(after bigint, most integer, OUT last bigint, OUT done bigint, OUT locked bigint)"
            " LANGUAGE sql {settings}\nBEGIN ATOMIC\n{alone};\n{body};\nEND",
            f=layout.object("copy"), settings=SETTINGS, alone=alone(layout), body=_copy(layout, mirror),
        ),
    )  # fmt: skip
    yield private(layout.object(suffix) for suffix in ("note", "copy"))


def _copy(layout: Layout, mirror: Mirror) -> Composed:
    parents, notes = canonical(mirror.table), layout.object("mirror")
    pairs = [(Identifier(column), _value(layout, mirror, measure)) for measure, column in mirror.columns.items()]
    kept = comma(Identifier(name) for name in layout.shape.columns)
    return fill(
        "  WITH due AS (SELECT * FROM {notes} WHERE id > after ORDER BY id LIMIT most),\n"
        "  free AS (SELECT p.* FROM {parents} AS p WHERE EXISTS (SELECT FROM due AS m WHERE {noted})"
        " FOR NO KEY UPDATE SKIP LOCKED),\n"
        "  written AS (UPDATE {parents} AS p SET {changes} FROM free AS f"
        " LEFT JOIN LATERAL (SELECT {kept} FROM {view} AS v WHERE {own} OFFSET 0) AS v ON true"
        " WHERE {same} AND ROW({old}) IS DISTINCT FROM ROW({new})),\n"
        "  held AS (SELECT m.id FROM due AS m JOIN {parents} AS p ON {noted}"
        " WHERE NOT EXISTS (SELECT FROM free AS f WHERE {freed})),\n"
        "  gone AS (DELETE FROM {notes} WHERE id IN (SELECT id FROM due EXCEPT SELECT id FROM held))\n"
        "  SELECT max(id), count(*) - (SELECT count(*) FROM held), (SELECT count(*) FROM held) FROM due",
        notes=notes, parents=parents, kept=kept, view=layout.own(layout.name),
        noted=_equal(layout, mirror, _PARENT, _NOTE, layout.keys),
        own=_equal(layout, mirror, SQL("f"), _KEPT, [Identifier(key.name) for key in layout.shape.keys]),
        same=_equal(layout, mirror, _PARENT, SQL("f"), [Identifier(name) for name in mirror.keys]),
        freed=_equal(layout, mirror, SQL("f"), _NOTE, layout.keys),
        changes=comma(fill("{c} = {v}", c=column, v=value) for column, value in pairs),
        old=comma(dotted(_PARENT, column) for column, _ in pairs), new=comma(value for _, value in pairs),
    )  # fmt: skip


def _value(layout: Layout, mirror: Mirror, measure: str) -> Composable:
    """What `.get()` answers: a group without rows counts 0, and so does a missing sum where no NULL may stand."""
    column = dotted(_KEPT, Identifier(measure))
    counts = any(part.name == measure and part.function == "count" for part in layout.shape.measures)
    is_zero = counts or mirror.columns[measure] in mirror.required
    return fill("coalesce({c}, 0)", c=column) if is_zero else column


def _equal(
    layout: Layout, mirror: Mirror, left: Composable, right: Composable, columns: list[Identifier] | list[SQL]
) -> Composed:
    """The parent's key columns at the left equal the columns at the right."""
    return conjunction(
        fill(
            "{l} OPERATOR({schema}.=) {r}",
            l=dotted(left, Identifier(own)), r=dotted(right, other), schema=Identifier(key.operator_schema),
        )
        for own, other, key in zip(mirror.keys, columns, layout.snapshot.keys, strict=True)
    )  # fmt: skip
