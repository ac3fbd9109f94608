"""Partitions that come and go: each is counted in, or out, as a whole.

A partition may be attached with rows in it, or detached and changed, and no trigger tells. So the partitions that are
counted are listed, each with the transaction that attached it; while the list is not what the catalog says, readers
are served by the source and nothing is folded. Deltas carry the partition that they come from:

- `x__adopt` counts in a partition that is not listed: its deltas so far give way to a count of its rows in the same
  snapshot, and what commits later comes as deltas as ever;
- `x__release` counts out a partition that nobody else can write to, and that its caller detaches.

A partition that has gone without being released cannot be told from the rest of the state any more: the aggregate is
backfilled.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Composable, Composed

from tallystick.compiler.capture import append_rows
from tallystick.compiler.components import Sign
from tallystick.compiler.layout import Layout
from tallystick.compiler.text import SETTINGS, Statement, canonical, dollar_quoted, fill, literal, private

_HERE = "\0"  # where the name of the partition goes; no SQL holds it


def partition_statements(layout: Layout) -> Iterator[Statement]:
    """`x__adopt(partition)` and `x__release(partition)`."""
    delta, name, source = layout.object("delta"), literal(layout.name), layout.object("source")
    adopt = fill(
        "  IF EXISTS (SELECT FROM {listed} AND relation = $1) THEN\n    RETURN;\n  END IF;\n"
        "  DELETE FROM {delta} AS d WHERE d.partition = $1;\n"
        "  DELETE FROM {reset} AS r WHERE r.aggregate = {name} AND r.partition = $1;\n  {list};\n"
        "  IF (SELECT relkind FROM pg_class WHERE oid = $1) <> 'p' THEN\n    {count};\n  END IF;\n",
        listed=layout.listed(), delta=delta, reset=layout.own("reset"), name=name,
        list=list_partitions(layout, fill("t.relation = $1")), count=_count(layout, "insert", fill("$1")),
    )  # fmt: skip
    yield _function(
        "counts a partition in, once; needs a REPEATABLE READ transaction, and nobody else who attaches or detaches",
        layout, "adopt", adopt,
    )  # fmt: skip
    release = fill(
        "  UPDATE {delta} AS d SET partition = {source}() WHERE d.partition = $1;\n"
        "  DELETE FROM {listed} AND relation = $1;\n  {count};\n",
        delta=delta, source=source, listed=layout.listed(),
        count=_count(layout, "delete", fill("{source}()", source=source)),
    )  # fmt: skip
    yield _function(
        "counts a partition out; needs it locked against writers, and no fold at work", layout, "release", release
    )
    yield private(layout.object(suffix) for suffix in ("adopt", "release"))


def list_partitions(layout: Layout, condition: Composable) -> Composed:
    """INSERT into the list what is below the source and meets a condition on `t`, with what leads down to it."""
    return fill(
        "INSERT INTO {table} (aggregate, relation, attached)\n"
        "    SELECT {name}, p.relation, p.attached FROM {below}({source}()) AS p WHERE EXISTS\n"
        "      (SELECT FROM {below}({source}()) AS t WHERE {condition} AND p.relation = ANY (t.path))\n"
        "    ON CONFLICT DO NOTHING",
        table=layout.own("partition"), name=literal(layout.name), below=layout.own("below"),
        source=layout.object("source"), condition=condition,
    )  # fmt: skip


def _count(layout: Layout, sign: Sign, tag: Composable) -> Composed:
    """EXECUTE: append deltas for the rows of the partition `$1`, whose name is looked up."""
    rows = fill("(SELECT o.* FROM {p} AS t, {row}(t) AS o)", p=canonical(_HERE), row=layout.object("row"))
    before, after = append_rows(layout, sign, rows, tag).as_string(None).split(_HERE)
    return fill("EXECUTE {before} || $1::text || {after} USING $1", before=literal(before), after=literal(after))


def _function(purpose: str, layout: Layout, suffix: str, body: Composed) -> Statement:
    sql = fill(
        "CREATE FUNCTION {f}(regclass) RETURNS void LANGUAGE plpgsql {settings}\nAS {body}",
        f=layout.object(suffix), settings=SETTINGS,
        body=dollar_quoted(fill("\nBEGIN\n{body}END\n", body=body)),
    )  # fmt: skip
    return Statement(purpose, sql)
