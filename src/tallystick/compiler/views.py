"""The views that readers use: state and deltas added up, either half by the switch, and the same ordered."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.layout import Layout, dotted
from tallystick.compiler.text import Statement, comma, conjunction, fill, literal
from tallystick.declare.names import ranking_name

_OWN = SQL("g")


def view_statements(layout: Layout) -> Iterator[Statement]:
    """`x__kept`, `x`, and, if there are groups to order, `x__by_<measure>` for each measure."""
    columns = comma(Identifier(name) for name in layout.shape.columns)
    kept, direct, view = layout.object("kept"), layout.object("direct"), layout.own(layout.name)
    yield Statement(
        "the kept answer: state and unfolded deltas in one snapshot",
        fill("CREATE VIEW {kept} AS\n{select}", kept=kept, select=_combined(layout, _state(layout))),
    )
    yield Statement(
        "what readers use: the half that the switch names",
        fill(
            "CREATE VIEW {view} AS\nSELECT {columns} FROM {kept} WHERE {serving} = 'kept'\n"
            "UNION ALL\nSELECT {columns} FROM {direct} WHERE {serving} IS DISTINCT FROM 'kept'",
            view=view, columns=columns, kept=kept, direct=direct, serving=layout.serving(),
        ),
    )  # fmt: skip
    if layout.keys:
        yield _changed(layout)
        for measure in layout.shape.measures:
            yield _ranking(layout, measure.name, columns)


def _finals(layout: Layout) -> Composed:
    """The declared columns, computed from the columns of one combined or folded row."""
    values: dict[str, Composable] = {}
    for name, key in zip(layout.keys, layout.shape.keys, strict=True):
        values[key.name] = name
    for measure, result in zip(layout.shape.measures, layout.parts.results, strict=True):
        values[measure.name] = result.value
    return comma(fill("{value} AS {name}", value=values[name], name=Identifier(name)) for name in layout.shape.columns)


def _state(layout: Layout) -> Composed:
    """Folded rows, unless a TRUNCATE has made them void."""
    return _split_by_width(layout, layout.object("state"), [fill("NOT {reset}", reset=layout.is_reset())])


def _split_by_width(layout: Layout, table: Composable, conditions: list[Composable]) -> Composed:
    """A table as a subquery whose two halves each meet an index of theirs."""
    if not layout.has_wide_keys:
        return fill("(SELECT * FROM {table} WHERE {c})", table=table, c=conjunction(conditions))
    return fill(
        "(SELECT * FROM {table} WHERE narrow AND {c} UNION ALL SELECT * FROM {table} WHERE NOT narrow AND {c})",
        table=table,
        c=conjunction(conditions),
    )


def _combined(layout: Layout, state: Composable) -> Composed:
    """Groups of `state` and of all valid deltas, added up, as declared columns."""
    parts = layout.parts
    sums: list[Composable] = [*layout.keys, SQL("sum(n)::bigint AS n")]
    sums += [fill("sum({a})::{t} AS {a}", a=part.name, t=part.type) for part in parts.additive]
    for extreme in parts.extremes:
        sums.append(fill("{best}({i}) AS {i}", best=extreme.best, i=extreme.came))
        sums.append(fill("{best}({d}) AS {d}", best=extreme.best, d=extreme.went))
    sums += [fill("sum({c})::bigint AS {c}", c=facet.distinct) for facet in parts.facets]
    resolved: list[Composable] = [*layout.keys, SQL("n"), *(part.name for part in parts.additive)]
    resolved += [
        fill(
            "CASE WHEN {stands} THEN {came} ELSE ({again}) END AS {m}",
            stands=extreme.stands(), came=extreme.came, again=_again(layout, extreme.over()),
            m=extreme.kept,
        )
        for extreme in parts.extremes
    ]  # fmt: skip
    resolved += [facet.distinct for facet in parts.facets]
    return fill(
        "SELECT {finals} FROM (\n  SELECT {resolved} FROM (\n    SELECT {sums} FROM (\n{parts}\n    ) AS p{group_by}\n"
        "  ) AS g{present}\n) AS r",
        finals=_finals(layout), resolved=comma(resolved), sums=comma(sums),
        parts=SQL("\n    UNION ALL\n").join(_parts(layout, state)),
        group_by=fill(" GROUP BY {keys}", keys=comma(layout.keys)) if layout.keys else SQL(""),
        present=SQL(" WHERE n > 0") if layout.keys else SQL(""),
    )  # fmt: skip


def _again(layout: Layout, best: Composable) -> Composed:
    """An extreme of one group, read from the source."""
    return fill(
        "SELECT {best} FROM {rows} AS s WHERE {same}",
        best=best, rows=layout.source_rows(), same=layout.equal_keys(SQL("s"), _OWN, null_safe=True),
    )  # fmt: skip


def _parts(layout: Layout, state: Composable) -> Iterator[Composed]:
    """What is added up: folded rows, deltas, and for each facet the values that unfolded deltas bring or take."""
    parts = layout.parts
    items: list[Composable] = [*layout.keys, SQL("n"), *(part.name for part in parts.additive)]
    for extreme in parts.extremes:
        items.append(fill("{m} AS {i}", m=extreme.kept, i=extreme.came))
        items.append(fill("NULL::{t} AS {d}", t=_collated(extreme.type, extreme.collation), d=extreme.went))
    items += [facet.distinct for facet in parts.facets]
    yield fill("    SELECT {items} FROM {state} AS s", items=comma(items), state=state)

    items = [*layout.keys, SQL("n"), *(part.name for part in parts.additive)]
    for extreme in parts.extremes:
        items += [extreme.came, extreme.went]
    items += [SQL("NULL::bigint") for _ in parts.facets]
    valid: list[Composable] = [layout.current_epoch()]
    main = [*valid, SQL("facet = 0")] if parts.facets else valid
    yield fill(
        "    SELECT {items} FROM {delta} AS d",
        items=comma(items), delta=_split_by_width(layout, layout.object("delta"), main),
    )  # fmt: skip
    for facet in parts.facets:
        yield _facet_part(layout, facet.index, valid)


def _facet_part(layout: Layout, index: int, valid: list[Composable]) -> Composed:
    parts = layout.parts
    facet = parts.facets[index - 1]
    items: list[Composable] = [*(dotted(SQL("t"), key) for key in layout.keys), SQL("0")]
    items += [fill("NULL::{t}", t=part.type) for part in parts.additive]
    for extreme in parts.extremes:
        items += [fill("NULL::{t}", t=_collated(extreme.type, extreme.collation))] * 2
    change = SQL("(coalesce(f.n, 0) + t.n > 0)::integer::bigint - (coalesce(f.n, 0) > 0)::integer")
    items += [change if other is facet else SQL("NULL::bigint") for other in parts.facets]
    columns = [*layout.keys, facet.value]
    return fill(
        "    SELECT {items} FROM (SELECT {columns}, sum(n)::bigint AS n FROM {delta} AS d GROUP BY {columns}) AS t\n"
        "    LEFT JOIN {table} AS f ON f.h = {hash} AND {same} AND NOT {reset}",
        items=comma(items), columns=comma(columns),
        delta=_split_by_width(
            layout, layout.object("delta"), [*valid, fill("facet = {i}", i=literal(index))]
        ),
        table=layout.object(f"facet{index}"),
        hash=layout.hash_of(*(dotted(SQL("t"), c) for c in columns)),
        same=layout.same(SQL("f"), SQL("t"), columns), reset=layout.is_reset(),
    )  # fmt: skip


def _collated(type_: Composable, collation: Composable) -> Composable:
    return fill("{t}{c}", t=type_, c=collation)


def _touched(layout: Layout) -> Composed:
    """Hashes of the groups that have deltas. Groups that share one count as touched together, which is harmless."""
    return fill("SELECT {hash} AS h FROM {delta}", hash=layout.hash_of(*layout.keys), delta=layout.object("delta"))


def _changed(layout: Layout) -> Statement:
    """Groups with deltas, and those that no index of the state can order."""
    state, touched = layout.object("state"), _touched(layout)
    alive = fill("NOT {reset}", reset=layout.is_reset())
    wide: Composable = SQL("")
    if layout.has_wide_keys:
        wide = fill(
            " UNION ALL SELECT * FROM {state} WHERE NOT narrow AND h NOT IN ({touched}) AND {alive}",
            state=state, touched=touched, alive=alive,
        )  # fmt: skip
    rows = fill(
        "(SELECT s.* FROM (SELECT DISTINCT h FROM ({touched}) AS d) AS c"
        " CROSS JOIN LATERAL (SELECT * FROM {state} AS s WHERE s.h = c.h OFFSET 0) AS s WHERE {alive}{wide})",
        touched=touched, state=state, alive=alive, wide=wide,
    )  # fmt: skip
    return Statement(
        "the kept answer of the groups that have unfolded deltas",
        fill("CREATE VIEW {view} AS\n{select}", view=layout.object("changed"), select=_combined(layout, rows)),
    )


def _ranking(layout: Layout, measure: str, columns: Composable) -> Statement:
    """Settled groups come from the index in order; only groups with deltas are computed and sorted."""
    keys = comma(Identifier(key.name) for key in layout.shape.keys)
    order = fill("ORDER BY {m} DESC NULLS LAST, {keys}", m=Identifier(measure), keys=keys)
    kept = fill("{serving} = 'kept'", serving=layout.serving())
    settled = [kept, fill("NOT {reset}", reset=layout.is_reset()), fill("h NOT IN ({t})", t=_touched(layout))]
    sql = fill(
        "CREATE VIEW {view} AS\n"
        "SELECT {columns} FROM (SELECT {finals} FROM {state} WHERE {settled} {order}) AS a\n"
        "UNION ALL\n"
        "SELECT {columns} FROM (SELECT {columns} FROM {changed} WHERE {kept} {order}) AS b\n"
        "UNION ALL\n"
        "SELECT {columns} FROM (SELECT {columns} FROM {direct} WHERE {serving} IS DISTINCT FROM 'kept' {order}) AS c",
        view=layout.own(ranking_name(layout.name, measure)),
        columns=columns, finals=_finals(layout), state=layout.object("state"),
        settled=conjunction([*settled, *layout.narrow_column()]), order=order,
        changed=layout.object("changed"), kept=kept, direct=layout.object("direct"), serving=layout.serving(),
    )  # fmt: skip
    return Statement(f"groups by {measure}, the greatest first, for .top()", sql)
