"""Fold and rebuild: one function each.

A fold has two statements, each with a snapshot of its own: the first clears what a TRUNCATE has made void, the second
folds, and does nothing if a marker has arrived between them, or a partition that is not counted yet. Before them come
the hashes, if another major version of PostgreSQL has computed them (after pg_upgrade).

A fold takes *all* deltas it sees. That is what lets it settle extremes: a snapshot that holds the delete of a row holds
its insert too, so nothing that a later fold will see can have gone already. What commits meanwhile is simply not
seen and waits for the next fold. Deleting and adding up are one statement, so readers see a delta or its effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.components import Facet
from tallystick.compiler.counted import counted_facet, counted_state
from tallystick.compiler.layout import Layout, dotted
from tallystick.compiler.partitions import list_partitions
from tallystick.compiler.text import SETTINGS, Statement, comma, conjunction, fill, literal, private
from tallystick.declare.names import fold_lock_key


def folding_statements(layout: Layout) -> Iterator[Statement]:
    """`x__fold()` and `x__rebuild()`."""
    yield Statement(
        "adds all visible deltas to the state; returns deltas consumed and groups written",
        fill(
            "CREATE FUNCTION {f}(OUT deltas bigint, OUT groups bigint) LANGUAGE sql {settings}\n"
            "BEGIN ATOMIC\n{body};\nEND",
            f=layout.object("fold"), settings=SETTINGS,
            body=SQL(";\n").join([alone(layout), *_hash_again(layout), _clear_after_reset(layout), _fold(layout)]),
        ),
    )  # fmt: skip
    yield Statement(
        "computes the state from the source anew; returns groups written. Needs a REPEATABLE READ transaction",
        fill(
            "CREATE FUNCTION {f}() RETURNS bigint LANGUAGE sql {settings}\nBEGIN ATOMIC\n{body};\nEND",
            f=layout.object("rebuild"), settings=SETTINGS, body=SQL(";\n").join(_rebuild(layout)),
        ),
    )  # fmt: skip
    yield private(layout.object(name) for name in ("fold", "rebuild"))


def _tables(layout: Layout) -> list[Identifier]:
    return [layout.object("state"), *(layout.object(f"facet{facet.index}") for facet in layout.parts.facets)]


def alone(layout: Layout) -> Composed:
    """Wait for others who fold, in a statement of its own, so that the snapshots of the next ones are younger."""
    return fill(
        "  SELECT pg_advisory_xact_lock(hashtextextended({key}, 0))",
        key=literal(fold_lock_key(layout.schema, layout.name)),
    )


def _hash_again(layout: Layout) -> Iterator[Composed]:
    """A generated column is computed anew when a column that it is made of is written."""
    columns = [(layout.object("state"), layout.keys)]
    columns += [(layout.object(f"facet{f.index}"), [*layout.keys, f.value]) for f in layout.parts.facets]
    for table, hashed in columns:
        if hashed:
            yield fill(
                "  UPDATE {table} SET {c} = {c} WHERE NOT (SELECT {current} FROM {watermark})",
                table=table, c=hashed[0], current=layout.is_current(), watermark=layout.watermark(),
            )  # fmt: skip


def _clear_after_reset(layout: Layout) -> Composed:
    """After a TRUNCATE: state, older deltas and marker go together."""
    steps = [
        fill("{name} AS (DELETE FROM {table} WHERE (SELECT epoch FROM marker) IS NOT NULL)", name=name, table=table)
        for name, table in ((Identifier(f"void{i}"), table) for i, table in enumerate(_tables(layout)))
    ]
    if layout.snapshot.mirror is not None:
        void = fill(
            "SELECT {k} FROM {state} WHERE (SELECT epoch FROM marker) IS NOT NULL UNION SELECT {k} FROM void",
            k=comma(layout.keys), state=layout.object("state"),
        )  # fmt: skip
        steps.append(fill("to_mirror AS ({noted})", noted=to_mirror(layout, void)))
    return fill(
        "  WITH marker AS (SELECT max(epoch) AS epoch FROM {markers} AND {kept}),\n"
        "  void AS (DELETE FROM {delta} WHERE epoch < (SELECT epoch FROM marker) RETURNING *),\n  {steps}\n"
        "  DELETE FROM {reset} WHERE aggregate = {name} AND epoch <= (SELECT epoch FROM marker)",
        markers=layout.markers(), kept=layout.is_complete(), reset=layout.own("reset"), name=literal(layout.name),
        steps=SQL(",\n  ").join(steps), delta=layout.object("delta"),
    )  # fmt: skip


def to_mirror(layout: Layout, keys: Composable) -> Composed:
    """INSERT: copies of these groups are to be brought up to date."""
    return fill("INSERT INTO {mirror} ({k}) {keys}", mirror=layout.object("mirror"), k=comma(layout.keys), keys=keys)


def raise_floor(layout: Layout, folded: Composable) -> Composed:
    """Whatever is older than our snapshot is folded now. A folder is never older than the floor that it sets."""
    return fill(
        "UPDATE {table} SET floor = least(pg_snapshot_xmin(pg_current_snapshot()), pg_current_xact_id()),"
        " folder = pg_current_xact_id(), major = current_setting('server_version_num')::integer / 10000"
        " WHERE aggregate = {name} AND {folded}",
        table=layout.own("watermark"), name=literal(layout.name), folded=folded,
    )  # fmt: skip


def _fold(layout: Layout) -> Composed:
    can_fold = conjunction([layout.is_complete(), layout.alive(), *layout.is_whole()])
    did_fold = fill(
        "((NOT {current} AND {can_fold}) OR EXISTS (SELECT FROM gone))", current=layout.is_current(), can_fold=can_fold
    )
    steps: list[Composable] = [
        fill(
            "gone AS (DELETE FROM {delta} WHERE {c} RETURNING *)",
            delta=layout.object("delta"),
            c=conjunction([can_fold, *layout.counted()]),
        ),
        *(
            fill(
                "void AS (DELETE FROM {delta} WHERE {c} AND NOT {counted})",
                delta=layout.object("delta"),
                c=can_fold,
                counted=counted,
            )
            for counted in layout.counted()
        ),
        fill("floor AS ({update})", update=raise_floor(layout, did_fold)),
    ]
    steps += into_state(layout)
    if layout.snapshot.mirror is not None:
        changed = fill("SELECT {k} FROM next", k=comma(layout.keys))
        steps.append(fill("to_mirror AS ({noted})", noted=to_mirror(layout, changed)))
    return fill(
        "  WITH {steps}\n  SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM next)",
        steps=SQL(",\n  ").join(steps),
    )


def into_state(layout: Layout, *, only_inserts: bool = False) -> list[Composable]:
    """Steps that add the deltas `gone` to the state; `next` are the rows of the groups that change.

    Args:
        only_inserts: no row has gone, so no extreme has.
    """
    parts = layout.parts
    steps: list[Composable] = []
    for facet in parts.facets:
        steps += _fold_facet(layout, facet)
    steps += [_gathered(layout), _met(layout), _next_after_inserts(layout) if only_inserts else _next(layout)]
    columns: list[Composable] = [part.name for part in parts.additive]
    columns += [extreme.kept for extreme in parts.extremes]
    columns += [facet.distinct for facet in parts.facets]
    steps += _written(layout.object("state"), SQL("next"), "state", [*layout.narrow_column(), *layout.keys], columns)
    return steps


def _fold_facet(layout: Layout, facet: Facet) -> list[Composable]:
    columns = [*layout.keys, facet.value]
    table = layout.object(f"facet{facet.index}")
    gathered, met = Identifier(f"facet{facet.index}_gone"), Identifier(f"facet{facet.index}_next")
    return [
        fill(
            "{gathered} AS (SELECT {columns}, {hash} AS h, sum(n)::bigint AS n FROM gone WHERE facet = {i}"
            " GROUP BY {columns})",
            gathered=gathered, columns=comma(columns), hash=layout.hash_of(*columns), i=literal(facet.index),
        ),
        fill(
            "{met} AS (SELECT s.ctid AS place, {columns}, g.h, coalesce(s.n, 0) AS was, coalesce(s.n, 0) + g.n AS n"
            " FROM {gathered} AS g LEFT JOIN {table} AS s ON s.h = g.h AND {same})",
            met=met, columns=comma(dotted(SQL("g"), c) for c in columns), gathered=gathered, table=table,
            same=layout.same(SQL("s"), SQL("g"), columns),
        ),
        *_written(table, met, f"facet{facet.index}", columns, []),
    ]  # fmt: skip


def _written(
    table: Composable, rows: Composable, name: str, fixed: Sequence[Composable], changing: Sequence[Composable]
) -> list[Composable]:
    """Insert, update or delete the rows of a state table: `place` is where a row stands, NULL for a new one."""
    columns = [*fixed, SQL("n"), *changing]
    changes = [fill("{c} = f.{c}", c=column) for column in [SQL("n"), *changing]]
    return [
        fill(
            "{step} AS (INSERT INTO {table} ({columns}) SELECT {columns} FROM {rows} WHERE place IS NULL AND n <> 0)",
            step=Identifier(f"{name}_new"), table=table, columns=comma(columns), rows=rows,
        ),
        fill(
            "{step} AS (UPDATE {table} AS s SET {changes} FROM {rows} AS f WHERE s.ctid = f.place AND f.n <> 0)",
            step=Identifier(f"{name}_changed"), table=table, changes=comma(changes), rows=rows,
        ),
        fill(
            "{step} AS (DELETE FROM {table} AS s USING {rows} AS f WHERE s.ctid = f.place AND f.n = 0)",
            step=Identifier(f"{name}_emptied"), table=table, rows=rows,
        ),
    ]  # fmt: skip


def _gathered(layout: Layout) -> Composed:
    """Deltas per group, and what the folded facets change."""
    parts = layout.parts
    items: list[Composable] = [*layout.keys, *layout.narrow_column(), SQL("n"), *(part.name for part in parts.additive)]
    for extreme in parts.extremes:
        items += [extreme.came, extreme.went]
    branches = [
        fill(
            "SELECT {items} FROM gone{main}",
            items=comma([*items, *(fill("NULL::bigint AS {c}", c=facet.distinct) for facet in parts.facets)]),
            main=SQL(" WHERE facet = 0") if parts.facets else SQL(""),
        )
    ]
    for facet in parts.facets:
        change = SQL("((n > 0)::integer - (was > 0)::integer)::bigint")
        nothing: list[Composable] = [*layout.keys, *(SQL("NULL::boolean") for _ in layout.narrow_column()), SQL("0")]
        nothing += [fill("NULL::{t}", t=part.type) for part in parts.additive]
        for extreme in parts.extremes:
            nothing += [fill("NULL::{t}{c}", t=extreme.type, c=extreme.collation)] * 2
        nothing += [change if other is facet else SQL("NULL::bigint") for other in parts.facets]
        branches.append(
            fill("SELECT {items} FROM {rows}", items=comma(nothing), rows=Identifier(f"facet{facet.index}_next"))
        )
    sums: list[Composable] = [*layout.keys, fill("{hash} AS h", hash=layout.hash_of(*layout.keys))]
    sums += [SQL("bool_or(narrow) AS narrow")] if layout.has_wide_keys else []
    sums += [SQL("sum(n)::bigint AS n")]
    sums += [fill("sum({a})::{t} AS {a}", a=part.name, t=part.type) for part in parts.additive]
    for extreme in parts.extremes:
        sums += [fill("{best}({c}) AS {c}", best=extreme.best, c=c) for c in (extreme.came, extreme.went)]
    sums += [fill("sum({c})::bigint AS {c}", c=facet.distinct) for facet in parts.facets]
    return fill(
        "gathered AS (SELECT {sums} FROM ({branches}) AS p{group_by} HAVING count(*) > 0)",
        sums=comma(sums), branches=SQL(" UNION ALL ").join(branches),
        group_by=fill(" GROUP BY {keys}", keys=comma(layout.keys)) if layout.keys else SQL(""),
    )  # fmt: skip


def _met(layout: Layout) -> Composed:
    """Each changed group beside its state: new totals, and for extremes the best that came and the best that went."""
    parts = layout.parts
    items: list[Composable] = [SQL("s.ctid AS place"), SQL("g.h")]
    items += [dotted(SQL("g"), c) for c in [*layout.keys, *layout.narrow_column()]]
    items += [
        fill("coalesce(s.{c}, 0) + coalesce(g.{c}, 0) AS {c}", c=c)
        for c in [SQL("n"), *(part.name for part in parts.additive), *(facet.distinct for facet in parts.facets)]
    ]
    for extreme in parts.extremes:
        pair = SQL("greatest") if extreme.best == SQL("max") else SQL("least")
        items.append(fill("{pair}(s.{m}, g.{i}) AS {i}", pair=pair, m=extreme.kept, i=extreme.came))
        items.append(fill("g.{d}", d=extreme.went))
    return fill(
        "met AS (SELECT {items} FROM gathered AS g LEFT JOIN {state} AS s ON s.h = g.h AND {same})",
        items=comma(items), state=layout.object("state"), same=layout.same(SQL("s"), SQL("g"), layout.keys),
    )  # fmt: skip


def _next_after_inserts(layout: Layout) -> Composed:
    better = [fill("{i} AS {m}", i=extreme.came, m=extreme.kept) for extreme in layout.parts.extremes]
    return fill("next AS (SELECT {items} FROM met)", items=comma([SQL("*"), *better]))


def _next(layout: Layout) -> Composed:
    """The groups' next rows. Where an extreme may have gone, the group's extremes are read from the source."""
    extremes = layout.parts.extremes
    if not extremes:
        return _next_after_inserts(layout)
    stands = conjunction(extreme.stands() for extreme in extremes)
    best = comma(fill("{over} AS {m}", over=e.over(), m=e.kept) for e in extremes)
    key_columns = comma([SQL("o.h"), *(dotted(SQL("o"), key) for key in layout.keys)])

    def again(join: Composable, null_key: bool) -> Composed:
        present = layout.has_no_null(SQL("o"))
        return fill(
            "SELECT {keys}, {best} FROM open AS o JOIN {rows} AS r ON {join} WHERE {nulls}({present}) GROUP BY {keys}",
            keys=key_columns, best=best, rows=layout.source_rows(), join=join,
            nulls=SQL("NOT ") if null_key else SQL(""), present=present,
        )  # fmt: skip

    branches = [again(layout.equal_keys(SQL("r"), SQL("o"), null_safe=False), null_key=False)]
    if layout.keys:
        by_hash = fill(
            "{hash} = o.h AND {same}",
            hash=layout.hash_of(*(dotted(SQL("r"), key) for key in layout.keys)),
            same=layout.same(SQL("r"), SQL("o"), layout.keys),
        )
        branches.append(again(by_hash, null_key=True))
    resolved = comma(
        fill("CASE WHEN {stands} THEN {i} ELSE a.{m} END AS {m}", stands=stands, i=e.came, m=e.kept) for e in extremes
    )
    return fill(
        "open AS (SELECT {keys} FROM met WHERE n <> 0 AND NOT ({stands})),\n"
        "  again AS ({branches}),\n"
        "  next AS (SELECT met.*, {resolved} FROM met LEFT JOIN again AS a ON a.h = met.h AND {same})",
        keys=comma([SQL("h"), *layout.keys]), stands=stands,
        branches=SQL(" UNION ALL ").join(branches), resolved=resolved,
        same=layout.same(SQL("a"), SQL("met"), layout.keys),
    )  # fmt: skip


def emptied(layout: Layout) -> Iterator[Composed]:
    """Forget all that is kept; what the source is partitioned into now is what will be counted."""
    if layout.snapshot.mirror is not None:
        changed = fill(
            "SELECT {k} FROM {state} UNION SELECT {k} FROM {delta}",
            k=comma(layout.keys), state=layout.object("state"), delta=layout.object("delta"),
        )  # fmt: skip
        yield to_mirror(layout, changed)
    for table in [*_tables(layout), layout.object("delta")]:
        yield fill("DELETE FROM {table}", table=table)
    yield from counted_anew(layout)


def counted_anew(layout: Layout) -> Iterator[Composed]:
    """Markers of TRUNCATE are void, and the partitions that there are now are listed."""
    yield fill("DELETE FROM {reset} WHERE aggregate = {name}", reset=layout.own("reset"), name=literal(layout.name))
    if layout.snapshot.source.is_partitioned:
        yield fill("DELETE FROM {listed}", listed=layout.listed())
        yield list_partitions(layout, SQL("true"))


def state_to_mirror(layout: Layout) -> Iterator[Composed]:
    """The first time, parents that have a value are left alone; later, all copies are to be what is kept now."""
    if layout.snapshot.mirror is not None:
        kept = fill(
            "SELECT {k} FROM {state} WHERE (SELECT backfilled_at FROM {aggregate} WHERE name = {name}) IS NOT NULL",
            k=comma(layout.keys), state=layout.object("state"), aggregate=layout.own("aggregate"),
            name=literal(layout.name),
        )  # fmt: skip
        yield to_mirror(layout, kept)


def _rebuild(layout: Layout) -> Iterator[Composed]:
    rows = layout.source_rows()
    steps = [*emptied(layout), raise_floor(layout, SQL("true"))]
    steps += [counted_facet(layout, facet, rows) for facet in layout.parts.facets]
    steps += [counted_state(layout, rows), *state_to_mirror(layout)]
    steps.append(fill("SELECT count(*) FROM {state}", state=layout.object("state")))
    yield from (fill("  {step}", step=step) for step in steps)
