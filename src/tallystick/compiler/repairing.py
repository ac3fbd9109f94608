"""Repair: what is kept of single groups gives way to what the source says of them, in one snapshot.

A group is *odd* if its answers differ between the halves, or its number of rows, its sums or the values of a facet,
which may be wrong for long before an answer shows it. State, facets and visible deltas of odd groups are deleted, and
state and facets computed from the source; deltas that come later belong to rows that this snapshot does not see. All
other groups are left alone. It is one statement, so that all of it sees what was there before.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.components import Facet
from tallystick.compiler.counted import counted_facet, counted_state, in_facet
from tallystick.compiler.layout import Layout, dotted
from tallystick.compiler.text import SETTINGS, Statement, canonical, comma, fill, literal, private

_ODD, _ROW = SQL("o"), SQL("r")


def repair_statements(layout: Layout) -> Iterator[Statement]:
    """`x__repair()`."""
    yield Statement(
        "computes groups that are not what the source says anew; returns how many. Needs what rebuild needs",
        fill(
            "CREATE FUNCTION {f}() RETURNS bigint LANGUAGE sql {settings}\nBEGIN ATOMIC\n  {body};\nEND",
            f=layout.object("repair"), settings=SETTINGS, body=_repair(layout),
        ),
    )  # fmt: skip
    yield private([layout.object("repair")])


def _repair(layout: Layout) -> Composed:
    facets = layout.parts.facets
    found = [_other_answers(layout), _other_sums(layout), *(_other_values(layout, facet) for facet in facets)]
    steps: list[Composable] = [
        fill(
            "odd AS MATERIALIZED (SELECT DISTINCT {items} FROM (\n    {found}) AS f)",
            items=comma([*layout.keys, fill("{h} AS h", h=layout.hash_of(*layout.keys))]),
            found=SQL("\n    UNION ALL ").join(found),
        )
    ]  # fmt: skip
    rows = fill(
        "(SELECT r.* FROM {rows} AS r WHERE EXISTS (SELECT FROM odd AS o WHERE {same}))",
        rows=layout.source_rows(), same=_is_odd(layout, _ROW),
    )  # fmt: skip
    for suffix in ("state", "delta", *(f"facet{facet.index}" for facet in facets)):
        gone = fill(
            "DELETE FROM {table} AS r USING odd AS o WHERE {same}",
            table=layout.object(suffix), same=_is_odd(layout, _ROW),
        )  # fmt: skip
        steps.append(fill("{step} AS ({gone})", step=Identifier(f"{suffix}_gone"), gone=gone))
    for facet in facets:
        step = Identifier(f"facet{facet.index}_counted")
        steps.append(fill("{step} AS ({counted})", step=step, counted=counted_facet(layout, facet, rows)))
    steps.append(fill("state_counted AS ({counted})", counted=counted_state(layout, rows)))
    if layout.snapshot.mirror is not None:
        noted = fill("INSERT INTO {m} ({k}) SELECT {k} FROM odd", m=layout.object("mirror"), k=comma(layout.keys))
        steps.append(fill("to_mirror AS ({noted})", noted=noted))
    return fill("WITH {steps}\n  SELECT count(*) FROM odd", steps=SQL(",\n  ").join(steps))


def _is_odd(layout: Layout, row: SQL) -> Composed:
    """A row with group keys is of the odd group `o`."""
    hashed = layout.hash_of(*(dotted(row, key) for key in layout.keys))
    return fill("{hash} = o.h AND {same}", hash=hashed, same=layout.same(row, _ODD, layout.keys))


def _other_answers(layout: Layout) -> Composed:
    """Keys of the rows that one half has and the other has not; each half is read once."""
    shape = layout.shape
    measures = [canonical(f"y{index}") for index in range(1, len(shape.measures) + 1)]
    items: list[Composable] = [
        fill("({own})::{t} AS {k}", own=Identifier(key.name), t=canonical(type_.stored), k=name)
        for key, type_, name in zip(shape.keys, layout.snapshot.keys, layout.keys, strict=True)
    ]
    items += [fill("{own} AS {y}", own=Identifier(m.name), y=y) for m, y in zip(shape.measures, measures, strict=True)]
    return fill(
        "SELECT {keys} FROM (SELECT 1 AS half, {items} FROM {kept} UNION ALL SELECT -1, {items} FROM {direct}) AS b"
        " GROUP BY {all} HAVING sum(half) <> 0",
        keys=comma(layout.keys), items=comma(items), kept=layout.object("kept"), direct=layout.object("direct"),
        all=comma([*layout.keys, *measures]),
    )  # fmt: skip


def _other_sums(layout: Layout) -> Composed:
    """Keys of groups whose number of rows or whose sums are not those of the source."""
    parts = [SQL("n"), *(additive.name for additive in layout.parts.additive)]
    kept = comma([*layout.keys, *parts])
    main = SQL(" WHERE facet = 0") if layout.parts.facets else SQL("")
    counted = [SQL("- count(*)"), *(additive.gathered("delete") for additive in layout.parts.additive)]
    differs = SQL(" OR ").join(fill("coalesce(sum({p}), 0) <> 0", p=part) for part in parts)
    return fill(
        "SELECT {keys} FROM (SELECT {kept} FROM {state} UNION ALL SELECT {kept} FROM {delta}{main}"
        " UNION ALL SELECT {counted} FROM {rows} AS r{by}) AS b{by} HAVING {differs}",
        keys=comma(layout.keys), kept=kept, state=layout.object("state"), delta=layout.object("delta"), main=main,
        counted=comma([*layout.keys, *counted]), rows=layout.source_rows(), by=_group_by(layout, []), differs=differs,
    )  # fmt: skip


def _other_values(layout: Layout, facet: Facet) -> Composed:
    """Keys of groups that have other values of a facet than the source, or other numbers of their rows."""
    kept = comma([*layout.keys, facet.value, SQL("n")])
    return fill(
        "SELECT {keys} FROM (SELECT {kept} FROM {table} UNION ALL SELECT {kept} FROM {delta} WHERE facet = {i}"
        " UNION ALL SELECT {counted}, -1 FROM {rows} AS r WHERE {present}) AS b{by} HAVING sum(n) <> 0",
        keys=comma(layout.keys), kept=kept, table=layout.object(f"facet{facet.index}"), delta=layout.object("delta"),
        i=literal(facet.index), counted=comma([*layout.keys, facet.argument]), rows=layout.source_rows(),
        present=in_facet(facet), by=_group_by(layout, [facet.value]),
    )  # fmt: skip


def _group_by(layout: Layout, more: list[SQL]) -> Composable:
    columns = [*layout.keys, *more]
    return fill(" GROUP BY {c}", c=comma(columns)) if columns else SQL("")
