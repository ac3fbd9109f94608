"""The triggers on a source that call the functions of capture: which fires when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.layout import Layout
from tallystick.compiler.snapshot import Source
from tallystick.compiler.text import NO_SQL, Statement, canonical, comma, fill
from tallystick.declare.names import internal_name, trigger_name


def partition_triggers(schema: str, aggregate: str, partition: str) -> Iterator[Statement]:
    """TRUNCATE of a partition alone fires no trigger of the partitioned table.

    Args:
        partition: qualified and quoted, as PostgreSQL prints it.
    """
    function = Identifier(schema, internal_name(aggregate, "truncate"))
    name = trigger_name(schema, aggregate, "truncate")
    return _trigger(name, partition, SQL("TRUNCATE"), SQL("FOR EACH STATEMENT"), function, SQL("ALWAYS"))


def move_trigger(schema: str, aggregate: str, source: Source) -> Iterator[Statement]:
    """An UPDATE of the primary key that changes no used column; none if the whole key is used.

    Args:
        source: of which the name, the used columns and those of the primary key are looked at.
    """
    if set(source.key_columns) <= set(source.used):
        return
    moved = _differ(source.key_columns)
    changed = fill(" AND NOT {d}", d=_differ(source.used)) if source.used else NO_SQL
    timing = fill("FOR EACH ROW WHEN ({moved}{changed})", moved=moved, changed=changed)
    function, name = Identifier(schema, internal_name(aggregate, "change")), trigger_name(schema, aggregate, "move")
    yield from _trigger(name, source.name, SQL("UPDATE"), timing, function, SQL("ALWAYS"))


def _differ(columns: Sequence[str]) -> Composed:
    """The image of a row's columns, not the value: 1.0 and 1.00 are equal and make averages of different scale."""
    old, new = (comma(fill("{r}.{c}", r=SQL(r), c=Identifier(c)) for c in columns) for r in ("OLD", "NEW"))
    return fill("record_image_ne(ROW({old}), ROW({new}))", old=old, new=new)


def triggers(layout: Layout) -> Iterator[Statement]:
    """What fires when: in ordinary sessions (O), in those that replay changes of elsewhere (R), or in both (A).

    Logical replication, and sessions that set session_replication_role to replica, fire no statement triggers.
    """
    source, change = layout.snapshot.source, layout.object("change")

    def trigger(
        event: str, word: SQL, timing: Composable, function: Identifier, enabled: SQL | None
    ) -> Iterator[Statement]:
        return _trigger(trigger_name(layout.schema, layout.name, event), source.name, word, timing, function, enabled)

    changed = fill("WHEN ({differ})", differ=_differ(source.used))
    # Once more, lest ENABLE TRIGGER ALL has ordinary rows counted twice.
    replayed = SQL("WHEN (current_setting('session_replication_role') = 'replica')")
    rows, statement, always = SQL("FOR EACH ROW"), SQL("FOR EACH STATEMENT"), SQL("ALWAYS")
    if source.is_partitioned:
        # Row triggers are cloned to every partition, those that come later too.
        yield from trigger("insert", SQL("INSERT"), rows, change, always)
        yield from trigger("delete", SQL("DELETE"), rows, change, always)
    else:
        for event, table in (("insert", SQL("NEW TABLE AS newtab")), ("delete", SQL("OLD TABLE AS oldtab"))):
            word = canonical(event.upper())
            whole, each = (fill("REFERENCING {t} {how}", t=table, how=how) for how in (statement, rows))
            yield from trigger(event, word, whole, layout.object(event), None)
            # A row trigger with a transition table has PostgreSQL refuse to make the table a partition or a child.
            each = fill("{each} {replayed}", each=each, replayed=replayed)
            yield from trigger(f"{event}_row", word, each, change, SQL("REPLICA"))
    if source.used:
        yield from trigger("update", SQL("UPDATE"), fill("{r} {c}", r=rows, c=changed), change, always)
    yield from move_trigger(layout.schema, layout.name, source)
    yield from trigger("truncate", SQL("TRUNCATE"), statement, layout.object("truncate"), always)
    for partition in source.partitions or ():
        yield from partition_triggers(layout.schema, layout.name, partition)


def _trigger(
    name: str, table: str, event: SQL, timing: Composable, function: Identifier, enabled: SQL | None
) -> Iterator[Statement]:
    trigger, on = Identifier(name), canonical(table)
    yield Statement(
        f"on {event.as_string(None)}",
        fill(
            "CREATE TRIGGER {trigger} AFTER {event} ON {table} {timing}\nEXECUTE FUNCTION {function}()",
            trigger=trigger, event=event, table=on, timing=timing, function=function,
        ),
    )  # fmt: skip
    if enabled is not None:
        yield Statement(
            "fires when changes of elsewhere are replayed" + ("" if enabled == SQL("ALWAYS") else ", and only then"),
            fill("ALTER TABLE {table} ENABLE {e} TRIGGER {t}", table=on, e=enabled, t=trigger),
        )
