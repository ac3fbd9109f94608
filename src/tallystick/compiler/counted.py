"""What the source's rows come to: INSERT into the state and the facets of a grouped aggregate."""

from __future__ import annotations

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.components import Facet
from tallystick.compiler.layout import Layout
from tallystick.compiler.text import comma, conjunction, fill, filtered


def counted_facet(layout: Layout, facet: Facet, rows: Composable) -> Composed:
    """INSERT the distinct values of source rows, which are key, arguments and filters, with their numbers of rows."""
    columns = comma([*layout.keys, facet.argument])
    return fill(
        "INSERT INTO {table} ({names}, n) SELECT {columns}, count(*) FROM {rows} AS r WHERE {present}"
        " GROUP BY {columns}",
        table=layout.object(f"facet{facet.index}"), names=comma([*layout.keys, facet.value]),
        columns=columns, rows=rows, present=in_facet(facet),
    )  # fmt: skip


def in_facet(facet: Facet) -> Composed:
    """The condition under which a source row has a value that counts."""
    condition = [facet.condition] if facet.condition else []
    return conjunction([*condition, fill("{x} IS NOT NULL", x=facet.argument)])


def counted_state(layout: Layout, rows: Composable) -> Composed:
    """INSERT the groups of source rows with all their components."""
    parts = layout.parts
    names: list[Composable] = [*layout.narrow_column(), *layout.keys, SQL("n")]
    items: list[Composable] = [*layout.narrow(), *layout.keys, SQL("count(*)")]
    for additive in parts.additive:
        names.append(additive.name)
        items.append(fill("coalesce({total}, 0)", total=additive.gathered("insert")))
    for extreme in parts.extremes:
        names.append(extreme.kept)
        items.append(extreme.over())
    for facet in parts.facets:
        names.append(facet.distinct)
        items.append(filtered(fill("count(DISTINCT {x})", x=facet.argument), facet.condition))
    return fill(
        "INSERT INTO {state} ({names}) SELECT {items} FROM {rows} AS r{group_by} HAVING count(*) > 0",
        state=layout.object("state"), names=comma(names), items=comma(items), rows=rows,
        group_by=fill(" GROUP BY {keys}", keys=comma(layout.keys)) if layout.keys else SQL(""),
    )  # fmt: skip
