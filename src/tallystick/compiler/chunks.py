"""A backfill in chunks, beside writers: what is counted when, and which changes it has counted already.

The rows of the source are cut into chunks along an order: that of the primary key, or of an ordered aggregate's items.
Each chunk is counted in a REPEATABLE READ transaction of its own, which stores the snapshot that it counted in.
Meanwhile the triggers append each change with the place of its row and the transaction that made it. So a change is
counted already if, and only if, its transaction is visible in the snapshot of the chunk that its place lies in: such
deltas are void when all chunks are counted, all others are as good as any. Nobody has to be waited for: whatever is not
visible then is newer than all snapshots.

The final chunk, from the last row on, is planned first, as number 0, and the others up to it: rows that come behind are
changes like any other, however many there are, and a backfill ends.

A change that moves a row to another place goes from one chunk and comes to another, as two deltas. Rows of `x__chunk`
name the transaction that wrote them, as those of the watermark do: in a restored database they are another's, and
transaction ids mean nothing there. Then, and after a TRUNCATE, the backfill begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.layout import Layout
from tallystick.compiler.order import Order
from tallystick.compiler.runs import EVERYTHING, Pieces, first
from tallystick.compiler.tables import stored_type, table, unlogged
from tallystick.compiler.text import (
    NO_SQL,
    SETTINGS,
    Statement,
    column,
    comma,
    dollar_quoted,
    fill,
    literal,
    private,
)


def chunk_tables(order: Order) -> Iterator[Statement]:
    """`x__chunk`: rows from the place `p…` on (of the first, from the start) up to that at `u…`, or to the end.

    `size` is how many rows there were about when it was planned, NULL of the one that was planned last, after which
    there is no other to plan.
    """
    layout, ends = order.layout, _ends(order)
    types = [stored_type(type_) for type_ in order.types]
    columns: list[Composable] = [SQL("id integer PRIMARY KEY")]
    for names in (order.position, ends):
        columns += [fill("{c} {t}", c=name, t=type_) for name, type_ in zip(names, types, strict=True)]
    columns += [SQL("size bigint"), SQL("snapshot pg_snapshot"), SQL("counter xid8 NOT NULL")]
    chunk = layout.object("chunk")
    yield Statement("chunks of a backfill; empty otherwise", table(unlogged(layout), chunk, columns, NO_SQL))
    yield Statement(
        "finds the chunk of a place",
        fill("CREATE INDEX ON {t} ({c})", t=chunk, c=order.index_columns()),
    )


def chunk_functions(
    order: Order,
    walked: Composable,
    *,
    begin: Iterable[Composable],
    count: Composable,
    settle: Iterable[Composable],
    kept: Composable,
    declarations: Composable = NO_SQL,
) -> Iterator[Statement]:
    """`x__begin`, `x__extend`, `x__count`, `x__settle`.

    Args:
        order: that the chunks are cut along.
        walked: relation of the places of all rows that a chunk may begin with.
        begin: statements that clear what is kept.
        count: PL/pgSQL that counts the rows of the chunk `c`.
        settle: statements that make what is kept of what was counted.
        kept: SELECT of the number of groups.
        declarations: of variables that `count` needs.
    """
    layout = order.layout
    chunk = layout.object("chunk")
    yield _atomic(
        layout, "begin", "clears what is kept, for a backfill to begin", SQL("void"),
        [fill("DELETE FROM {chunk}", chunk=chunk), *begin, SQL("SELECT")],
    )  # fmt: skip
    yield _extend(order, walked)
    body = fill(
        "  IF current_setting('transaction_isolation') = 'read committed' THEN\n"
        "    RAISE invalid_transaction_state USING MESSAGE = {message};\n  END IF;\n"
        "  SELECT * INTO c FROM {chunk} AS o WHERE o.snapshot IS NULL AND NOT {complete}\n"
        "    ORDER BY o.id LIMIT 1 FOR UPDATE SKIP LOCKED;\n"
        "  IF NOT FOUND THEN\n    RETURN;\n  END IF;\n"
        "{count}"
        "  UPDATE {chunk} AS o SET snapshot = pg_current_snapshot(), counter = pg_current_xact_id()"
        " WHERE o.id = c.id;\n"
        "  id := c.id;\n  size := c.size;\n",
        message=literal(f'aggregate "{layout.name}": a chunk is counted in a REPEATABLE READ transaction only.'),
        chunk=chunk, complete=layout.is_complete(), count=count,
    )  # fmt: skip
    yield _function(
        layout, "count", "counts a chunk that nobody counts; returns its number and size, or NULL if there is none",
        SQL("OUT id integer, OUT size bigint"), SQL("record"), fill("  c record;\n{more}", more=declarations), body,
    )  # fmt: skip
    yield _atomic(
        layout, "settle", "makes what is kept of what was counted, and drops the changes that were counted; returns"
        " the number of groups", SQL("bigint"),
        [*settle, _forget_floor(layout), fill("DELETE FROM {chunk}", chunk=chunk), kept],
    )  # fmt: skip
    yield private(layout.object(suffix) for suffix in ("begin", "extend", "count", "settle"))


def of_chunk(order: Order, step: Callable[[Pieces], Composable]) -> Composed:
    """PL/pgSQL: a step over the pieces of the order that the chunk `c` has."""
    low = [fill("c.{k}", k=name) for name in order.position]
    high = [fill("c.{u}", u=name) for name in _ends(order)]
    return fill(
        "  IF {low} IS NULL AND {high} IS NULL THEN\n    {all};\n"
        "  ELSIF {low} IS NULL THEN\n    {before};\n"
        "  ELSIF {high} IS NULL THEN\n    {behind};\n"
        "  ELSE\n    {between};\n  END IF;\n",
        low=low[0], high=high[0], all=step(EVERYTHING), before=step(order.before(high, after=False)),
        behind=step(order.behind(low, after=False)), between=step(order.between(low, high, high_in=False)),
    )  # fmt: skip


def drop_counted(order: Order) -> Composed:
    """DELETE: deltas that are in what the chunk of their place has counted."""
    chunk = order.layout.object("chunk")
    place = [fill("d.{k}", k=name) for name in order.position]
    at_or_before = first(order, chunk, [SQL("snapshot")], [], order.before(place, after=True), backwards=True)
    return fill(
        "DELETE FROM {delta} AS d WHERE pg_visible_in_snapshot(d.xact,"
        " coalesce({found}, (SELECT snapshot FROM {chunk} WHERE {start} IS NULL)))",
        delta=order.layout.object("delta"), found=at_or_before, chunk=chunk, start=order.position[0],
    )  # fmt: skip


def _forget_floor(layout: Layout) -> Composed:
    """Deltas that are left were folded by nobody."""
    return fill(
        "UPDATE {table} SET floor = '0', folder = pg_current_xact_id(),"
        " major = current_setting('server_version_num')::integer / 10000 WHERE aggregate = {name}",
        table=layout.own("watermark"), name=literal(layout.name),
    )  # fmt: skip


def chunk_end(order: Order) -> list[Composable]:
    """Values of the place that ends the chunk `c`."""
    return [fill("c.{u}", u=name) for name in _ends(order)]


def _ends(order: Order) -> list[SQL]:
    return [column("u", index) for index in range(1, len(order.position) + 1)]


def _extend(order: Order, walked: Composable) -> Statement:
    """Argument: rows of the new chunk. Whoever plans has waited for those who planned before."""
    layout, chunk = order.layout, order.layout.object("chunk")
    start = [fill("last.{u}", u=name) for name in _ends(order)]
    place, final, end = (
        [fill("{r}.{k}", r=SQL(row), k=name) for name in order.position] for row in ("t", "final", "ahead")
    )

    def walk(pieces: Pieces) -> Composed:
        return first(order, walked, order.position, [], pieces, offset=SQL("$1"))

    body = fill(
        "  IF current_setting('transaction_isolation') <> 'read committed' THEN\n"
        "    RAISE invalid_transaction_state USING MESSAGE = {message};\n  END IF;\n"
        "  PERFORM pg_advisory_xact_lock(hashtextextended({key}, 0));\n"
        "  LOCK TABLE {chunk} IN ROW EXCLUSIVE MODE;\n"  # what is read next is younger than a beginning or an end
        "  IF {complete} THEN\n    RETURN false;\n  END IF;\n"
        "  SELECT {starts} INTO final FROM {chunk} WHERE id = 0;\n"
        "  IF NOT FOUND THEN\n"
        "    INSERT INTO {chunk} (id, {starts}, size, counter)\n"
        "      SELECT 0, {place}, CASE WHEN {place1} IS NOT NULL THEN 0 END, pg_current_xact_id()\n"
        "      FROM (SELECT) AS one LEFT JOIN {last_row} AS t ON true;\n"
        "    RETURN true;\n  END IF;\n"
        "  SELECT * INTO last FROM {chunk} WHERE id > 0 ORDER BY id DESC LIMIT 1;\n"
        "  IF {final1} IS NULL OR last.id > 0 AND last.size IS NULL THEN\n    RETURN false;\n"
        "  ELSIF last.id IS NULL THEN\n    SELECT * INTO ahead FROM {from_start} AS u;\n"
        "  ELSE\n    SELECT * INTO ahead FROM {from_last} AS u;\n  END IF;\n"
        "  IF NOT FOUND THEN\n    ahead := final;\n    size := NULL;\n  END IF;\n"
        "  INSERT INTO {chunk} (id, {starts}, {ends}, size, counter)\n"
        "    VALUES (coalesce(last.id, 0) + 1, {last}, {end}, size, pg_current_xact_id());\n"
        "  RETURN true;\n",
        message=literal(f'aggregate "{layout.name}": a chunk is planned in a READ COMMITTED transaction only.'),
        key=literal(f"tallystick chunks {layout.schema}.{layout.name}"), complete=layout.is_complete(), chunk=chunk,
        place=comma(place), place1=place[0],
        last_row=first(order, walked, order.position, [], EVERYTHING, backwards=True), final1=final[0],
        from_start=walk(order.before(final, after=False)[::-1]),
        from_last=walk(order.between(start, final, high_in=False)), starts=comma(order.position),
        ends=comma(_ends(order)), last=comma(start), end=comma(end),
    )  # fmt: skip
    return _function(
        layout, "extend", "plans one more chunk of so many rows; false if there are no more rows", SQL("bigint"),
        SQL("boolean"), SQL("  size bigint := $1;\n  final record;\n  last record;\n  ahead record;\n"), body,
    )  # fmt: skip


def _atomic(layout: Layout, suffix: str, purpose: str, returns: Composable, steps: Iterable[Composable]) -> Statement:
    """In SQL, whose names follow renames of types, collations and tables."""
    sql = fill(
        "CREATE FUNCTION {f}() RETURNS {returns} LANGUAGE sql {settings}\nBEGIN ATOMIC\n  {steps};\nEND",
        f=layout.object(suffix), returns=returns, settings=SETTINGS, steps=SQL(";\n  ").join(steps),
    )  # fmt: skip
    return Statement(purpose, sql)


def _function(
    layout: Layout,
    suffix: str,
    purpose: str,
    takes: Composable,
    returns: Composable,
    declarations: Composable,
    body: Composable,
) -> Statement:
    text = fill(
        "\n#variable_conflict use_column\nDECLARE\n{declarations}BEGIN\n{body}END\n",
        declarations=declarations, body=body,
    )  # fmt: skip
    # A plan for any chunk would expect a few rows of each.
    sql = fill(
        "CREATE FUNCTION {f}({takes}) RETURNS {returns} LANGUAGE plpgsql {settings}\n"
        "SET plan_cache_mode = force_custom_plan\nAS {body}",
        f=layout.object(suffix), takes=takes, returns=returns, settings=SETTINGS, body=dollar_quoted(text),
    )  # fmt: skip
    return Statement(purpose, sql)
