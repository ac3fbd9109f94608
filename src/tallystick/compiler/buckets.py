"""Buckets: a skip list over the source's own index.

A row of `x__bucket` ends a *bucket*: the run of items from the place of the row before it up to its own place, where
the next bucket begins. It holds how many items are in the run, and their sums. Rows of level 1 stand about 250 items
apart; every so often a place stands in level 2 as well, with the totals since the place before it in level 2, and so
on. Behind the last place of a namespace is its tail, for which nothing is kept: a namespace of a few hundred rows has
no bucket at all, but where a chunk of a backfill ended in it; and keys that grow with time fall into the tail, where
nothing has to be counted.

So the number of items before a place is found as in a skip list (W. Pugh, "Skip lists: a probabilistic alternative to
balanced trees", 1990), here with fixed distances: the buckets of level 1 since the last place of level 2, those of
level 2 since the last of level 3, and so on; the deltas that no fold has taken in yet, before the last place of level
1; and the items behind that place, from the index. All of it is one snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.layout import Layout
from tallystick.compiler.order import Order, Values
from tallystick.compiler.runs import EVERYTHING, Pieces, first, rows, seek
from tallystick.compiler.text import (
    NO_SQL,
    Statement,
    canonical,
    column,
    comma,
    conjunction,
    dollar_quoted,
    fill,
    literal,
    private,
)
from tallystick.declare.ordered import Ordering

ITEMS = 256
"""Items of a bucket, about; twice as many are split."""
PLACES = 64
"""Buckets of one level in one of the next, about."""
LEVELS = 3


@dataclass(frozen=True)
class Buckets:
    """An ordered aggregate's own tables, and the recurring parts of what is computed over them."""

    order: Order
    ordering: Ordering

    @property
    def layout(self) -> Layout:
        return self.order.layout

    @property
    def items(self) -> Composable:
        return self.layout.object("direct")

    @property
    def table(self) -> Composable:
        return self.layout.object("bucket")

    @property
    def columns(self) -> list[SQL]:
        """Namespace and place."""
        return [*self.order.namespace, *self.order.position]

    @property
    def totals(self) -> list[tuple[SQL, SQL]]:
        """Components that are kept, with their types: the number of items first."""
        return [(SQL("n"), SQL("bigint")), *((part.name, part.type) for part in self.layout.parts.additive)]

    @property
    def run_of_items(self) -> int:
        """Items in a bucket of level 1."""
        return ITEMS

    @property
    def run_of_places(self) -> int:
        """Places of a level in a bucket of the next."""
        return PLACES

    def of_items(self) -> list[Composable]:
        """The components as computed from items."""
        additive = self.layout.parts.additive
        return [SQL("count(*)"), *(fill("coalesce({e}, 0)", e=part.gathered("insert")) for part in additive)]

    def arguments(self) -> list[Composable]:
        """Columns of items that components are computed from."""
        return [argument.name for argument in self.layout.arguments()]

    def files(self) -> Composed:
        """The files that the source's rows are in, as the catalog has it now, whatever the snapshot.

        A TRUNCATE empties the source for older snapshots too, which see neither its marker nor an empty bucket.
        """
        source = self.layout.object("source")
        if not self.layout.snapshot.source.is_partitioned:
            return fill("ARRAY[pg_relation_filenode({source}())]", source=source)
        # The planner, too, takes the partitions that there are now, whatever the snapshot.
        return fill(
            "ARRAY(SELECT pg_relation_filenode(relid) FROM pg_partition_tree({source}()) WHERE isleaf"
            " ORDER BY relid::oid)",
            source=source,
        )  # fmt: skip

    def has_files(self) -> Composed:
        """The source's rows are in the files that they were in when the buckets were made of them.

        A row of the watermark that was restored from a dump was written by another transaction than it names.
        """
        return fill(
            "(SELECT CASE WHEN xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN files END"
            " FROM {watermark}) IS NOT DISTINCT FROM {files}",
            watermark=self.layout.watermark(), files=self.files(),
        )  # fmt: skip

    def next_place(
        self, level: Composable, namespace: Values, place: Values, *, after: bool, more: Sequence[Composable] = ()
    ) -> Composed:
        """The first place of a level behind another place."""
        pieces = self.order.behind(place, after=after)
        at_level = fill("level = {level}", level=level)
        return first(self.order, self.table, [*self.order.position, *more], namespace, pieces, at_level)

    def seek_place(
        self,
        into: Values,
        level: Composable,
        namespace: Values,
        cut: Values,
        *,
        after: bool,
        backwards: bool = False,
    ) -> Composed:
        """PL/pgSQL: the first place of a level behind a cut, or backwards the last before it; NULLs are no cut."""
        at_level = fill("level = {level}", level=level)
        return seek(
            self.order, into, self.table, namespace, cut, at_level, after=after, backwards=backwards, whole=True
        )  # fmt: skip

    def seek_item(
        self, into: Values, namespace: Values, cut: Values, *, after: bool, backwards: bool = False
    ) -> Composed:
        """The same of the items."""
        return seek(self.order, into, self.items, namespace, cut, after=after, backwards=backwards, whole=True)

    def unfolded(self, namespace: Values) -> Composed:
        """The condition of deltas that are to be added."""
        layout = self.layout
        values = [self.order.collated(name, v) for name, v in zip(self.order.namespace, namespace, strict=True)]
        own = fill("{hash} = {wanted}", hash=layout.hash_of(*self.order.namespace), wanted=layout.hash_of(*values))
        return conjunction([own, *self.order.in_namespace(namespace), layout.unfolded(), *layout.counted()])


def totals_functions(buckets: Buckets) -> list[Statement]:
    """`x__rank` and `x__totals`: what lies before a place; and `x__nth`, the item that so many lie before."""
    found = [_before(buckets, "rank", "number of items before a place", buckets.totals[:1])]
    if len(buckets.totals) > 1:
        found.append(_before(buckets, "totals", "components of the items before a place", buckets.totals))
    internal = ["rank", "nth", *(["totals"] if len(found) > 1 else [])]
    return [*found, _nth(buckets), private(buckets.layout.object(name) for name in internal)]


def internal_function(
    layout: Layout, suffix: str, arguments: Composable, declarations: Composable, body: Composable, tail: Composable
) -> Composed:
    """A function in PL/pgSQL that only our own functions call, under their settings."""
    text = fill(
        "\n#variable_conflict use_column\nDECLARE\n{declarations}BEGIN\n{body}END\n",
        declarations=declarations, body=body,
    )  # fmt: skip
    return fill(
        "CREATE FUNCTION {f}({arguments}) {tail} LANGUAGE plpgsql\nAS {body}",
        f=layout.object(suffix), arguments=arguments, tail=tail, body=dollar_quoted(text),
    )  # fmt: skip


def parameters(buckets: Buckets, columns: Sequence[SQL]) -> list[Composable]:
    """Types of parameters that take values of columns."""
    return [buckets.order.type_of(name) for name in columns]


def numbered(start: int, count: int) -> list[SQL]:
    """`$start …`: parameters by their number, so that no name of theirs can be taken for a column."""
    return [canonical(f"${number}") for number in range(start, start + count)]


def before_place(buckets: Buckets, namespace: Values, place: Values, totals: Sequence[tuple[SQL, SQL]]) -> Composed:
    """SELECT: one row of components, `r1 …`, of the items before a place; without those at the place itself.

    Args:
        place: values, or columns of a row before it in FROM; where they are NULL, the row means nothing.
    """
    order = buckets.order
    columns = order.position
    of_items, names = buckets.of_items()[: len(totals)], [name for name, _ in totals]
    arguments = buckets.arguments() if len(totals) > 1 else []
    summed = [fill("sum({n})", n=name) for name in names]

    def place_of(level: int) -> list[Composed]:
        return [fill("p{level}.{k}", level=SQL(str(level)), k=name) for name in columns]

    def step(alias: SQL, found: Composable) -> Composed:
        return fill("LEFT JOIN LATERAL {found} AS {alias} ON true", found=found, alias=alias)

    def total(alias: SQL, values: Sequence[Composable], table: Composable) -> Composed:
        sums = comma(fill("{v} AS {n}", v=value, n=name) for value, name in zip(values, names, strict=True))
        return step(alias, fill("(SELECT {sums} FROM {table} AS u)", sums=sums, table=table))

    def since(low: Sequence[Composable], some: Pieces, all_: Pieces) -> list[Composable]:
        """Pieces from a place on, or from the start where there is no such place."""
        return [*some, *(conjunction([piece, fill("{v} IS NULL", v=low[0])]) for piece in all_)]

    steps: list[Composable] = []
    for level in range(1, LEVELS + 1):
        cut = place if level == 1 else place_of(level - 1)
        pieces = order.before(cut, after=True)
        at_level = fill("level = {l}", l=literal(level))
        last = first(order, buckets.table, columns, namespace, pieces, at_level, backwards=True)
        steps.append(step(SQL(f"p{level}"), last))
    for level in range(1, LEVELS + 1):
        here, at_level = place_of(level), fill("level = {l}", l=literal(level))
        whole: Pieces = order.before(here, after=True)
        if level < LEVELS:
            above = place_of(level + 1)
            whole = since(above, order.between(above, here, low_in=False), whole)
        steps.append(total(SQL(f"w{level}"), summed, rows(order, buckets.table, names, namespace, whole, at_level)))
    last_place = place_of(1)
    unfolded = conjunction([buckets.unfolded(namespace), order.is_before(last_place)])
    deltas = fill(
        "(SELECT {names} FROM {t} WHERE {c})", names=comma(names), t=buckets.layout.object("delta"), c=unfolded
    )  # fmt: skip
    steps.append(total(SQL("d"), summed, deltas))
    # In order, though none is needed, lest the planner walks along another index and passes over ties one by one.
    edge = since(last_place, order.between(last_place, place, high_in=False), order.before(place, after=False))
    read = [*arguments, columns[0]]
    steps.append(total(SQL("e"), of_items, rows(order, buckets.items, read, namespace, edge, in_order=True)))
    parts = [*(SQL(f"w{level}") for level in range(1, LEVELS + 1)), SQL("d"), SQL("e")]
    results = [
        fill("({sum})::{t} AS {r}", t=type_, r=column("r", index),
             sum=SQL(" + ").join(fill("coalesce({p}.{n}, 0)", p=part, n=name) for part in parts))
        for index, (name, type_) in enumerate(totals, start=1)
    ]  # fmt: skip
    return fill(
        "(SELECT {results} FROM (SELECT) AS one\n    {steps})", results=comma(results),
        steps=SQL("\n    ").join(steps),
    )  # fmt: skip


def _before(buckets: Buckets, suffix: str, purpose: str, totals: list[tuple[SQL, SQL]]) -> Statement:
    """Arguments: namespace and place."""
    order = buckets.order
    namespace = numbered(1, len(order.namespace))
    place = numbered(1 + len(namespace), len(order.position))
    results = [column("r", index) for index in range(1, len(totals) + 1)]
    body = fill(
        "  SELECT * INTO {results} FROM {before} AS b;\n",
        results=comma(results), before=before_place(buckets, namespace, place, totals),
    )  # fmt: skip
    outs = [fill("OUT {r} {t}", r=result, t=type_) for result, (_, type_) in zip(results, totals, strict=True)]
    takes = [*parameters(buckets, buckets.columns), *outs]
    return Statement(purpose, internal_function(buckets.layout, suffix, comma(takes), NO_SQL, body, SQL("STABLE")))


def _nth(buckets: Buckets) -> Statement:
    """Arguments: namespace, and how many items lie before the one that is wanted. NULLs where there is none.

    The last place that no more items lie before, by the buckets alone, is a guess; with the deltas before it, it is
    known how many items lie before it, and the item is as many away as the deltas have moved it and the tail is long.
    """
    order = buckets.order
    namespace = numbered(1, len(order.namespace))
    (wanted,) = numbered(1 + len(namespace), 1)
    at, low, high, stop = (order.variables(prefix) for prefix in ("at", "lo", "hi", "up"))
    results = [column("r", index) for index in range(1, len(order.position) + 1)]
    places = first(
        order, buckets.table, [*order.position, SQL("n")], namespace, order.between(low, high), SQL("level = height"),
        limit=SQL("ALL"),
    )  # fmt: skip
    moved = fill(
        "SELECT folded + coalesce(sum(n), 0) INTO folded FROM {delta} AS d WHERE {unfolded} AND {before}",
        delta=buckets.layout.object("delta"), unfolded=buckets.unfolded(namespace), before=order.is_before(at),
    )  # fmt: skip

    def item(pieces: Pieces, offset: Composable, *, backwards: bool) -> Composed:
        found = first(order, buckets.items, order.position, namespace, pieces, backwards=backwards, offset=offset)
        return fill("SELECT * INTO {r} FROM {found} AS u", r=comma(results), found=found)

    on = fill("({w} - folded)", w=wanted)
    body = fill(
        "  IF {wanted} < 0 THEN\n    RETURN;\n  END IF;\n"
        "  FOR height IN REVERSE {levels} .. 1 LOOP\n"
        "{next}    CONTINUE WHEN {low1} IS NULL;\n"
        "{last}    CONTINUE WHEN {high1} IS NULL OR {crossed};\n"
        "    FOR {each}, passed IN SELECT * FROM {places} AS u LOOP\n"
        "      IF folded + passed > {wanted} THEN\n        {stop_is_each};\n        EXIT;\n      END IF;\n"
        "      folded := folded + passed;\n      {at_is_each};\n"
        "    END LOOP;\n"
        "  END LOOP;\n"
        "  IF {at1} IS NULL THEN\n    {from_start};\n    RETURN;\n  END IF;\n"
        "  {moved};\n"
        "  IF {wanted} >= folded THEN\n    {forth};\n  ELSE\n    {back};\n  END IF;\n",
        wanted=wanted, levels=literal(LEVELS), low1=low[0], high1=high[0],
        next=buckets.seek_place(low, SQL("height"), namespace, at, after=True),
        last=buckets.seek_place(high, SQL("height"), namespace, stop, after=False, backwards=True),
        crossed=order.is_before(low, values=high), places=places, each=comma(results),
        stop_is_each=assign(stop, results), at_is_each=assign(at, results), at1=at[0], moved=moved,
        from_start=item(EVERYTHING, on, backwards=False),
        forth=item(order.behind(at, after=False), on, backwards=False),
        back=item(order.before(at, after=False), fill("(folded - {w} - 1)", w=wanted), backwards=True),
    )  # fmt: skip
    outs = [
        fill("OUT {r} {t}", r=result, t=order.type_of(name))
        for result, name in zip(results, order.position, strict=True)
    ]
    takes = [*parameters(buckets, order.namespace), SQL("bigint"), *outs]
    declarations = fill(
        "{places}  folded bigint := 0;\n  passed bigint;\n", places=order.declarations("at", "lo", "hi", "up")
    )
    return Statement(
        "the item that so many lie before",
        internal_function(buckets.layout, "nth", comma(takes), declarations, body, SQL("STABLE")),
    )


def assign(variables: Values, values: Values) -> Composed:
    """PL/pgSQL assignments."""
    pairs = zip(variables, values, strict=True)
    return SQL("; ").join(fill("{variable} := {value}", variable=one, value=other) for one, other in pairs)
