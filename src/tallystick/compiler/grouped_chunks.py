"""How a grouped aggregate is backfilled in chunks of the primary key: each is counted to deltas, and all are folded."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.capture import append_rows
from tallystick.compiler.chunks import chunk_functions, chunk_tables, drop_counted, of_chunk
from tallystick.compiler.folding import emptied, into_state, state_to_mirror, to_mirror
from tallystick.compiler.layout import Layout
from tallystick.compiler.order import Order
from tallystick.compiler.runs import Pieces, rows
from tallystick.compiler.tables import unlogged
from tallystick.compiler.text import Statement, comma, fill


def grouped_chunks(layout: Layout) -> Iterator[Statement]:
    """`x__chunk`, `x__counted`, and the functions of a backfill; none without a primary key."""
    if not layout.places:
        return
    order, counted = Order.of_primary_key(layout), layout.object("counted")
    yield from chunk_tables(order)
    yield Statement(
        "what the chunks of a backfill count to, as deltas; empty otherwise",
        fill(
            "CREATE {unlogged}TABLE {counted} (LIKE {delta} INCLUDING DEFAULTS)",
            unlogged=unlogged(layout), counted=counted, delta=layout.object("delta"),
        ),
    )  # fmt: skip
    yield from chunk_functions(
        order, layout.object("places"),
        begin=[fill("DELETE FROM {counted}", counted=counted), *emptied(layout)],
        count=_count(order), settle=_settle(order),
        kept=fill("SELECT count(*) FROM {state}", state=layout.object("state")),
    )  # fmt: skip


def _count(order: Order) -> Composed:
    """PL/pgSQL: append what the rows of the chunk `c` count to."""
    layout = order.layout
    columns = [*layout.keys, *(argument.name for argument in layout.arguments())] or order.position[:1]
    source = fill("{f}()", f=layout.object("source"))

    def counted(pieces: Pieces) -> Composed:
        chunk = rows(order, layout.object("rows"), columns, [], pieces)
        return append_rows(layout, "insert", chunk, source, into=layout.object("counted"))

    return of_chunk(order, counted)


def _settle(order: Order) -> Iterator[Composable]:
    layout = order.layout
    if layout.snapshot.mirror is not None:
        yield to_mirror(layout, fill("SELECT {k} FROM {delta}", k=comma(layout.keys), delta=layout.object("delta")))
    yield drop_counted(order)
    gone = fill("gone AS (SELECT * FROM {counted})", counted=layout.object("counted"))
    yield fill(
        "WITH {steps}\n    SELECT count(*) FROM next",
        steps=SQL(",\n    ").join([gone, *into_state(layout, only_inserts=True)]),
    )
    yield from state_to_mirror(layout)
    yield fill("DELETE FROM {counted}", counted=layout.object("counted"))
