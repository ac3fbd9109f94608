"""How an ordered aggregate is backfilled in chunks of its order: the buckets of level 1 of each, then those above."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.buckets import Buckets
from tallystick.compiler.chunks import chunk_end, chunk_functions, chunk_tables, drop_counted, of_chunk
from tallystick.compiler.folding import counted_anew
from tallystick.compiler.ordered_folding import higher_levels, note_files, places_of_items
from tallystick.compiler.runs import Pieces, rows
from tallystick.compiler.text import Statement, comma, conjunction, fill


def ordered_chunks(buckets: Buckets) -> Iterator[Statement]:
    """`x__chunk` and the functions of a backfill."""
    layout, order = buckets.layout, buckets.order.of_all()
    yield from chunk_tables(order)
    walked: Composable = buckets.items
    if layout.has_wide_keys:  # a chunk begins where a bucket can end
        walked = fill("(SELECT * FROM {items} WHERE {narrow}) AS i", items=walked, narrow=conjunction(layout.narrow()))
    begin = [fill("DELETE FROM {t}", t=table) for table in (layout.object("delta"), buckets.table)]
    settle = [
        drop_counted(order), note_files(buckets), *higher_levels(buckets),
    ]  # fmt: skip
    kept = fill("SELECT count(*) FROM {bucket} WHERE level = 1", bucket=buckets.table)
    yield from chunk_functions(
        order, walked, begin=[*begin, *counted_anew(layout)], count=_count(buckets), settle=settle, kept=kept,
        declarations=buckets.order.declarations("lo"),
    )  # fmt: skip


def _count(buckets: Buckets) -> Composed:
    """PL/pgSQL: insert the buckets of the chunk `c`; one ends where the chunk does, if its namespace goes on."""
    order = buckets.order.of_all()

    def counted(pieces: Pieces) -> Composed:
        chunk = rows(order, buckets.items, [*buckets.columns, *buckets.arguments()], [], pieces)
        return places_of_items(buckets, chunk)

    return Composed([of_chunk(order, counted), _edge(buckets)])


def _edge(buckets: Buckets) -> Composed:
    order = buckets.order
    count = len(order.namespace)
    start = [fill("c.{k}", k=name) for name in buckets.columns]
    end = chunk_end(order.of_all())
    first, last, low = start[count:], end[count:], order.variables("lo")
    same = [order.compare(k, "=", v, left=s) for k, v, s in zip(order.namespace, end, start, strict=False)]

    def bucket(pieces: Pieces) -> Composed:
        items = rows(order, buckets.items, [*buckets.arguments(), *order.position[:1]], end[:count], pieces)
        names = [name for name, _ in buckets.totals]
        totals = comma(fill("{v} AS {n}", v=v, n=n) for v, n in zip(buckets.of_items(), names, strict=True))
        return fill(
            "INSERT INTO {table} (level, {columns}, {names})\n    SELECT 1, {end}, {names}"
            " FROM (SELECT {totals} FROM {items} AS i) AS t WHERE n > 0;\n",
            table=buckets.table, columns=comma(buckets.columns), names=comma(names), end=comma(end), totals=totals,
            items=items,
        )  # fmt: skip

    return fill(
        "  IF {end1} IS NOT NULL THEN\n"
        "{last_place}"
        # Buckets before the chunk are those of another, which nobody may have counted yet.
        "  IF {goes_on} AND ({low1} IS NULL OR {is_before}) THEN\n    SELECT {start} INTO {low};\n  END IF;\n"
        "  IF {low1} IS NULL THEN\n    {from_start}  ELSE\n    {from_low}  END IF;\n"
        "  END IF;\n",
        end1=end[0],
        last_place=buckets.seek_place(low, SQL("1"), end[:count], last, after=False, backwards=True),
        goes_on=conjunction([fill("{s} IS NOT NULL", s=start[0]), *same]), low1=low[0],
        is_before=order.is_before(first, values=low), start=comma(first), low=comma(low),
        from_start=bucket(order.before(last, after=False)),
        from_low=bucket(order.between(low, last, high_in=False)),
    )  # fmt: skip
