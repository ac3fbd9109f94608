"""Counters: their settings, their views and functions, who may use them, and what waits to be folded."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import Identifier

from tallystick.compiler.text import comma, fill
from tallystick.declare.counter import Counter
from tallystick.declare.names import internal_name
from tallystick.maintain.checks.finding import LONG_BACKLOG, Finding
from tallystick.store import catalog, counters
from tallystick.store.connection import Cursor

_FUNCTIONS = ["counter_add", "counter_add_many", "counter_set", "counter_rebalance", "counter_estimate"]


def of_counters(cursor: Cursor, schema: str, declared: dict[str, Counter]) -> Iterator[Finding]:
    """Those that are installed, and those that are declared and not installed."""
    installed = counters.every(cursor, schema)
    yield from _functions(cursor, schema, [found.name for found in installed])
    for found in installed:
        name = found.name
        counter = declared.pop(name, None)
        if counter is not None and counter.fingerprint != found.fingerprint:
            yield Finding(
                "advice", name, "is installed with other settings than those declared", f"tally install {name}"
            )
        views = [name, *([internal_name(name, "direct")] if found.definition is not None else [])]
        for what in catalog.missing(cursor, schema, views, _FUNCTIONS):
            remedy = f"tally uninstall {name} && tally install {name}, which gives up its values"
            yield Finding("error", name, f'"{what}" is missing in schema "{schema}"', remedy)
        fresh = counters.fresh_rows(cursor, schema, name)
        if fresh > LONG_BACKLOG:
            yield Finding("advice", name, f"{fresh:,} rows wait to be folded; reads are slow", f"tally fold {name}")
    for name in declared:
        yield Finding("advice", name, "declared and not installed", f"tally install {name}")


def _functions(cursor: Cursor, schema: str, names: list[str]) -> Iterator[Finding]:
    """What keeps the functions of counters from working, for everybody or for a role that was granted a part of it."""
    if not names:
        return
    if catalog.counters_name_another_schema(cursor, schema):
        what = "was renamed: every add to its counters fails, since their functions name another schema"
        yield Finding("error", schema, what, f"tally install {names[0]}")
    grants = catalog.counter_grants(cursor, schema, names)
    somebody_adds = any(each.may_add for each in grants)
    for each in grants:
        role = Identifier(each.role)
        if not each.may_enter:
            grant = fill("GRANT USAGE ON SCHEMA {s} TO {r}", s=Identifier(schema), r=role)
            what = f"{each.role} was granted the use of counters and may not use the schema"
            yield Finding("advice", schema, what, grant.as_string(None))
        if each.may_add and not each.may_read:
            views = comma(Identifier(schema, name) for name in names)
            grant = fill("GRANT SELECT ON {views} TO {r}", views=views, r=role)
            what = f"{each.role} may add to counters and read none of them"
            yield Finding("advice", schema, what, grant.as_string(None))
        if not somebody_adds:
            functions = comma(Identifier(schema, name) for name in _FUNCTIONS)
            grant = fill("GRANT EXECUTE ON FUNCTION {functions} TO {r}", functions=functions, r=role)
            what = f"{each.role} may read counters, and no role beside the owner may add to them"
            yield Finding("advice", schema, what, grant.as_string(None))
