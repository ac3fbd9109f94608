"""Compile a canonical declaration of an ordered aggregate and a catalog snapshot into SQL statements; pure.

Objects of an aggregate `x`:

- `x__direct` (view): the items: namespace, sort key, primary key, and what is summed; `x`: the same for readers;
- `x__bucket`: number of items and sums of each run of neighbours, in levels;
- `x__delta`, `x__insert()` and so on: capture, as of a grouped aggregate whose groups are the single items;
- `x__rank()`, `x__totals()`, `x__nth()`: what lies before a place, and what so many items lie before;
- `x_count()`, `x_rank()`, `x_at()` and so on: what readers call;
- `x__fold()`, `x__rebuild()`: deltas into buckets, buckets from the source; `x__cut()`, `x__join()`: their size;
- `x__chunk`, `x__begin()`, `x__extend()`, `x__count()`, `x__settle()`: a backfill in chunks of the order;
- `x__check()`: buckets beside the source, for which `x__runs()` counts the items of all of them;
- `x__adopt()`, `x__release()`: partitions that come and go, of a partitioned source.

The items themselves are kept nowhere: an index of the source on (namespace, order) is the lowest level.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from psycopg.sql import SQL, Composable, Identifier

from tallystick.compiler.batch_functions import batch_functions
from tallystick.compiler.buckets import Buckets, totals_functions
from tallystick.compiler.capture import capture_statements
from tallystick.compiler.grouped import Compiled
from tallystick.compiler.item_functions import item_functions
from tallystick.compiler.layout import Layout
from tallystick.compiler.order import Order
from tallystick.compiler.order_functions import value_functions
from tallystick.compiler.ordered_checks import check_functions
from tallystick.compiler.ordered_chunks import ordered_chunks
from tallystick.compiler.ordered_folding import folding_functions
from tallystick.compiler.partitions import partition_statements
from tallystick.compiler.read_function import item_columns, public_columns
from tallystick.compiler.snapshot import Snapshot
from tallystick.compiler.tables import additive_definitions, delta_table, table, unlogged
from tallystick.compiler.text import Statement, canonical, column, comma, fill
from tallystick.declare.ordered import Ordering
from tallystick.declare.sqltext import Shape


def compile_ordered(
    name: str, schema: str, shape: Shape, snapshot: Snapshot, ordering: Ordering, version: int = 1
) -> Compiled:
    """Compile an ordered aggregate.

    Args:
        name: of the aggregate; its view gets this name, its functions begin with it.
        schema: of the installation.
        shape: of the canonical declaration: group keys are namespace, sort key, rest of the primary key.
        snapshot: what the catalog says about it.
        ordering: how the group keys divide.
        version: of the definition, counted by those who redefine it.
    Raises:
        DeclarationError: a sum over a type that cannot be kept.
    """
    layout = _layout(name, schema, shape, snapshot, ordering, version)
    buckets = Buckets(Order.of(layout, ordering), ordering)
    functions, triggers = capture_statements(layout)
    objects = [_items(layout), *_tables(buckets), *functions, _public_view(buckets), *totals_functions(buckets)]
    objects += [*_reads(buckets), *folding_functions(buckets), *ordered_chunks(buckets), *check_functions(buckets)]
    if snapshot.source.is_partitioned:
        objects += partition_statements(layout)
    return Compiled(tuple(objects), tuple(triggers))


def resting_ordered(name: str, schema: str, shape: Shape, snapshot: Snapshot, ordering: Ordering) -> list[Statement]:
    """What readers of an ordered aggregate name while nothing of it is kept: all of it answers from the source.

    It needs the functions of the installation, and none of its tables.
    """
    layout = replace(_layout(name, schema, shape, snapshot, ordering), is_resting=True)
    buckets = Buckets(Order.of(layout, ordering), ordering)
    return [_items(layout), _public_view(buckets), *_reads(buckets)]


def _layout(name: str, schema: str, shape: Shape, snapshot: Snapshot, ordering: Ordering, version: int = 1) -> Layout:
    keys = shape.keys[: ordering.namespace + ordering.key]
    present = [fill("({e}) IS NOT NULL", e=canonical(key.expression)).as_string(None) for key in keys]
    conditions = [f"({shape.where})"] if shape.where else []
    items = replace(shape, where=" AND ".join([*conditions, *present]) or None)
    return replace(Layout.of(name, schema, items, snapshot, version), has_single_rows=True)


def _reads(buckets: Buckets) -> list[Statement]:
    return [*value_functions(buckets), *item_functions(buckets), *batch_functions(buckets)]


def _items(layout: Layout) -> Statement:
    arguments = [measure.argument for measure in layout.shape.measures if measure.argument is not None]
    sums = [fill("{e} AS {s}", e=canonical(text), s=column("s", i)) for i, text in enumerate(arguments, start=1)]
    return Statement(
        "the items, from the source",
        fill(
            "CREATE VIEW {view} AS\nSELECT {items}\n{source}",
            view=layout.object("direct"), items=comma([layout.row_items(), *sums]), source=layout.from_where(),
        ),
    )  # fmt: skip


def _public_view(buckets: Buckets) -> Statement:
    names = [Identifier(name) for name, _ in public_columns(buckets)]
    columns = comma(fill("{c} AS {n}", c=c, n=n) for c, n in zip(item_columns(buckets), names, strict=True))
    return Statement(
        "the items, for readers",
        fill(
            "CREATE VIEW {view} AS\nSELECT {columns} FROM {items}",
            view=buckets.layout.own(buckets.layout.name), columns=columns, items=buckets.items,
        ),
    )  # fmt: skip


def _tables(buckets: Buckets) -> Iterator[Statement]:
    layout = buckets.layout
    columns: list[Composable] = [SQL("level smallint NOT NULL"), *layout.key_definitions(), SQL("n bigint NOT NULL")]
    columns += additive_definitions(layout)
    # Updates of totals are HOT while there is room in the page.
    yield Statement(
        "totals of runs of neighbouring items, each up to a place where the next begins",
        table(unlogged(layout), buckets.table, columns, SQL(" WITH (fillfactor = 80)")),
    )
    yield Statement(
        "finds places in order",
        fill(
            "CREATE UNIQUE INDEX ON {t} (level, {columns})", t=buckets.table, columns=buckets.order.index_columns()
        ),
    )  # fmt: skip
    yield delta_table(layout)
    hashed = [fill("({h})", h=layout.hash_of(*buckets.order.namespace))] if buckets.order.namespace else []
    yield Statement(
        "finds the unfolded of a namespace",
        fill("CREATE INDEX ON {t} ({c})", t=layout.object("delta"), c=comma([*hashed, SQL("xact")])),
    )
