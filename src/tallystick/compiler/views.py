"""The views that readers use: state and deltas added up, either half by the switch.

A group is *settled* when its state alone is its answer: it has no unfolded delta. Telling so takes a look into the
index of the deltas, which needs a key without NULLs that is not too wide for a B-tree; groups with other keys are never
called settled. All other groups are *changed*: their state and their deltas are added up.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.layout import Layout, dotted
from tallystick.compiler.text import Statement, comma, conjunction, fill, literal

# True, and never in a parallel worker. The planner adds up the cost of both halves; without this it would start workers
# for the sake of the direct half and then find that half switched off, or for deltas that a fold has long consumed.
_LEADER = SQL("pg_backend_pid() <> 0")
_GROUP = SQL("g")
_STATE = SQL("s")
_DELTA = SQL("d")


def view_statements(layout: Layout) -> Iterator[Statement]:
    """`x__kept` and `x`; if there are groups, also `x__settled` and `x__changed`, `x__front` and `x__rest`."""
    kept, direct, view = layout.object("kept"), layout.object("direct"), layout.own(layout.name)
    if not layout.keys:
        state = fill("(SELECT * FROM {state} WHERE {alive})", state=layout.object("state"), alive=layout.alive())
        yield _view("the kept answer: state and unfolded deltas in one snapshot", kept, _combined(layout, state))
        yield _view("what readers use: the half that the switch names", view, _switched(layout, kept, direct))
        return
    settled, changed = layout.object("settled"), layout.object("changed")
    front, rest = layout.object("front"), layout.object("rest")
    yield _view("groups that their state alone answers", settled, _settled(layout, SQL("")))
    yield _view(
        "groups that have unfolded deltas: state and deltas added up",
        changed,
        _combined(layout, _state_of_changed(layout)),
    )
    yield _view("the kept answer", kept, _union(layout, [(settled, None), (changed, None)]))
    # OFFSET 0 has each group looked up by itself, in the order of an index, for as long as the reader asks for more.
    ordered = fill("{settled} AND {kept}", settled=_settled(layout, SQL(" OFFSET 0")), kept=_is_kept(layout))
    yield _view("settled groups in the order of an index, for .top()", front, ordered)
    yield _view("all other groups, for .top()", rest, _switched(layout, changed, direct))
    both: list[tuple[Identifier, Composable | None]] = [(settled, _is_kept(layout)), (rest, None)]
    yield _view("what readers use: the half that the switch names", view, _union(layout, both))


def resting_views(layout: Layout) -> Iterator[Statement]:
    """Those of them that readers name, while nothing is kept: `x`, and for `.top()` also `x__front` and `x__rest`."""
    columns = comma(Identifier(name) for name in layout.shape.columns)
    source = fill("SELECT {columns} FROM {direct}", columns=columns, direct=layout.object("direct"))
    if layout.keys:
        nothing = fill("{source} WHERE false", source=source)
        yield _view("no group is settled", layout.object("front"), nothing)
        yield _view("all groups, from the source", layout.object("rest"), source)
    yield _view("what readers use: the source", layout.own(layout.name), source)


def _view(purpose: str, name: Identifier, query: Composable) -> Statement:
    return Statement(purpose, fill("CREATE VIEW {name} AS\n{query}", name=name, query=query))


def _union(layout: Layout, views: list[tuple[Identifier, Composable | None]]) -> Composed:
    columns = comma(Identifier(name) for name in layout.shape.columns)
    return SQL("\nUNION ALL\n").join(
        fill(
            "SELECT {columns} FROM {view}{where}",
            columns=columns, view=view, where=fill(" WHERE {c}", c=condition) if condition else SQL(""),
        )
        for view, condition in views
    )  # fmt: skip


def _switched(layout: Layout, kept: Identifier, direct: Identifier) -> Composed:
    """The kept view while the switch says kept, the direct one otherwise; a one-time filter turns either off."""
    is_direct = fill("({kept}) IS NOT TRUE", kept=layout.is_kept())
    return _union(layout, [(kept, _is_kept(layout)), (direct, is_direct)])


def _is_kept(layout: Layout) -> Composed:
    return fill("{kept} AND {leader}", kept=layout.is_kept(), leader=_LEADER)


def _settled(layout: Layout, tail: Composable) -> Composed:
    return fill(
        "SELECT {finals} FROM {state} AS s WHERE {conditions} AND NOT {touched}",
        finals=_finals(layout), state=layout.object("state"),
        conditions=conjunction([layout.alive(), *_plain_key(layout)]), touched=_touched(layout, tail),
    )  # fmt: skip


def _plain_key(layout: Layout) -> list[Composable]:
    """The conditions under which a key can be found in the index of the deltas."""
    return [*layout.narrow_column(_STATE), fill("{present}", present=layout.has_no_null(_STATE))]


def _touched(layout: Layout, tail: Composable) -> Composed:
    """A delta has the key of the state's row, whatever its width: equal keys may be stored in unequal sizes."""
    return fill(
        "EXISTS (SELECT FROM {deltas} AS d WHERE {same}{tail})",
        tail=tail,
        deltas=_deltas(layout, []),
        same=layout.equal_keys(_DELTA, _STATE, null_safe=False),
    )


def _state_of_changed(layout: Layout) -> Composed:
    """The state of all groups that are not settled."""
    narrow, alive = layout.narrow_column(_STATE), layout.alive()
    conditions = [
        [alive, *_plain_key(layout), _touched(layout, SQL(""))],
        [alive, *narrow, fill("NOT ({present})", present=layout.has_no_null(_STATE))],
    ]
    if narrow:
        conditions.append([alive, fill("NOT {narrow}", narrow=narrow[0])])
    return fill(
        "({rows})",
        rows=SQL(" UNION ALL ").join(
            fill("SELECT * FROM {state} AS s WHERE {c}", state=layout.object("state"), c=conjunction(each))
            for each in conditions
        ),
    )


def _finals(layout: Layout) -> Composed:
    """The declared columns, computed from the columns of one combined or folded row."""
    values: dict[str, Composable] = {}
    for name, key in zip(layout.keys, layout.shape.keys, strict=True):
        values[key.name] = name
    for measure, result in zip(layout.shape.measures, layout.parts.results, strict=True):
        values[measure.name] = result.value
    return comma(fill("{value} AS {name}", value=values[name], name=Identifier(name)) for name in layout.shape.columns)


def _deltas(layout: Layout, conditions: list[Composable]) -> Composed:
    """Unfolded deltas as a subquery; of a key that may be wide, two halves that each meet an index of theirs."""
    halves = [[SQL("narrow")], [SQL("NOT narrow")]] if layout.has_wide_keys else [[]]
    always = [layout.unfolded(), *layout.counted(), *conditions, _LEADER]
    template = "SELECT * FROM {table} WHERE {c}"
    parts = [SQL(template).format(table=layout.object("delta"), c=conjunction([*half, *always])) for half in halves]
    return fill("({rows})", rows=SQL(" UNION ALL ").join(parts))


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
        best=best, rows=layout.source_rows(), same=layout.equal_keys(_STATE, _GROUP, null_safe=True),
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
    yield fill("    SELECT {items} FROM {delta} AS d", items=comma(items), delta=_deltas(layout, main))
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
        delta=_deltas(layout, [*valid, fill("facet = {i}", i=literal(index))]),
        table=layout.object(f"facet{index}"),
        hash=layout.hash_of(*(dotted(SQL("t"), c) for c in columns)),
        same=layout.same(SQL("f"), SQL("t"), columns), reset=layout.is_reset(),
    )  # fmt: skip


def _collated(type_: Composable, collation: Composable) -> Composable:
    return fill("{t}{c}", t=type_, c=collation)
