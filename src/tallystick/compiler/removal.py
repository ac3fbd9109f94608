"""What takes an aggregate out again, from its name and definition alone; each step does nothing where it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import Identifier

from tallystick.compiler.text import Statement, canonical, fill, literal
from tallystick.declare.names import internal_name, read_name, trigger_name
from tallystick.declare.ordered import Ordering
from tallystick.declare.sqltext import Shape

VIEWS = ("front", "rest", "kept", "settled", "changed", "direct")
OF_BUILDING = ("places", "rows")
FUNCTIONS = ("fold", "rebuild", "insert", "delete", "change", "truncate")
OF_GROUPS = ("repair",)
OF_STATEMENTS = ("insert", "delete", "refill")
OF_CHUNKS = ("begin", "extend", "count", "settle")
UNDER_VIEWS = ("guard", "refill", "row", "source")
OF_PARTITIONS = ("adopt", "release")
OF_MIRROR = ("note", "copy")
OF_ORDER = ("check", "cut", "join", "nth", "rank", "runs", "same_files", "totals")
OF_ORDERED_PARTITIONS = ("refile",)
OF_FORMER_LAYOUTS = ("update",)
READS = ("count", "rank", "rank_of", "at", "percentile", "min", "max", "page", "namespaces", "count_many")
OWN_ROWS = ("reset", "watermark", "partition", "audit", "backlog")
"""Tables of the installation that hold rows of each aggregate."""


def expected_triggers(schema: str, name: str, *, uses_columns: bool, is_partitioned: bool) -> dict[str, str]:
    """The triggers that an aggregate needs on its source, each with its `tgenabled`."""
    enabled = {"insert": "O", "delete": "O", "insert_row": "R", "delete_row": "R"}
    if is_partitioned:
        enabled = {"insert": "A", "delete": "A"}
    enabled |= {"update": "A", "truncate": "A"} if uses_columns else {"truncate": "A"}
    return {trigger_name(schema, name, event): letter for event, letter in enabled.items()}


def object_names(
    name: str, shape: Shape, ordering: Ordering | None, *, is_partitioned: bool, has_mirror: bool
) -> tuple[list[str], list[str]]:
    """The relations and the functions that an aggregate needs; `ordering` of an ordered one."""
    views: Sequence[str] = VIEWS if shape.keys else ("kept", "direct")
    kept = "state"
    functions = [*FUNCTIONS, *UNDER_VIEWS]
    if ordering is not None:
        views, kept = ("direct",), "bucket"
        sums = any(measure.argument is not None for measure in shape.measures)
        functions += [suffix for suffix in OF_ORDER if sums or suffix != "totals"]
        functions += OF_ORDERED_PARTITIONS if is_partitioned else ()
    relations = [name, *(internal_name(name, suffix) for suffix in (*views, kept, "delta"))]
    functions = [suffix for suffix in functions if not (is_partitioned and suffix in OF_STATEMENTS)]
    functions += OF_GROUPS if ordering is None else ()
    functions += OF_PARTITIONS if is_partitioned else ()
    functions += OF_MIRROR if has_mirror else ()
    relations += [internal_name(name, "mirror")] if has_mirror else []
    reads = read_names(name, shape, ordering) if ordering is not None else []
    return relations, [*(internal_name(name, suffix) for suffix in functions), *reads]


def read_names(name: str, shape: Shape, ordering: Ordering) -> list[str]:
    """The functions that readers of an ordered aggregate call."""
    reads = [read for read in READS if ordering.namespace or read != "namespaces"]
    sums = [f"sum_{measure.name}" for measure in shape.measures if measure.argument is not None]
    return [read_name(name, read) for read in (*reads, *sums, *(f"{each}_many" for each in sums))]


def building_view_names(name: str) -> list[str]:
    """Views that are there while a backfill is due or under way."""
    return [internal_name(name, suffix) for suffix in OF_BUILDING]


def view_names(name: str) -> list[str]:
    """All other views that an aggregate may have, each before those that it reads."""
    return [name, *(internal_name(name, suffix) for suffix in VIEWS)]


def all_views(name: str) -> list[str]:
    return [*building_view_names(name), *view_names(name)]


def table_names(name: str, shape: Shape) -> list[str]:
    """All tables that an aggregate may have."""
    facets = [f"facet{index}" for index in range(1, len(shape.measures) + 1)]
    return [
        internal_name(name, suffix) for suffix in ("delta", "state", "bucket", "mirror", "chunk", "counted", *facets)
    ]


def function_names(name: str) -> list[str]:
    """All functions that an aggregate may have."""
    of_kinds = ("place", *OF_GROUPS, *OF_CHUNKS, *OF_PARTITIONS, *OF_MIRROR, *OF_ORDER, *OF_ORDERED_PARTITIONS)
    return [internal_name(name, suffix) for suffix in (*FUNCTIONS, *OF_FORMER_LAYOUTS, *of_kinds, *UNDER_VIEWS)]


def stop_statements(triggers: Sequence[tuple[str, str]]) -> Iterator[Statement]:
    """Drop triggers, each given with its table as PostgreSQL prints it."""
    for table, trigger in triggers:
        yield Statement("stops capturing", fill("DROP TRIGGER {g} ON {t}", g=Identifier(trigger), t=canonical(table)))


def removal_statements(
    name: str, schema: str, shape: Shape, ordering: Ordering | None, triggers: Sequence[tuple[str, str]]
) -> Iterator[Statement]:
    """Drop everything of an aggregate but its row in the table of aggregates.

    Args:
        ordering: of an ordered one.
        triggers: each with its table as PostgreSQL prints it.
    """
    reads = read_names(name, shape, ordering) if ordering is not None else []
    yield from stop_statements(triggers)
    yield from removed_code(name, schema, reads, all_views(name))
    yield from removed_tables(name, schema, shape)
    for own in OWN_ROWS:
        yield Statement(
            f"its rows in {own}",
            fill("DELETE FROM {t} WHERE aggregate = {n}", t=Identifier(schema, own), n=literal(name)),
        )


def resting_statements(
    name: str, schema: str, shape: Shape, triggers: Sequence[tuple[str, str]], *, has_source: bool
) -> Iterator[Statement]:
    """Drop everything but what readers name: views and functions, which need nothing else by now.

    Args:
        triggers: each with its table as PostgreSQL prints it.
        has_source: without it there is nothing that views could answer from, and they go too.
    """
    yield from stop_statements(triggers)
    yield from removed_code(name, schema, [], inner_views(name) if has_source else all_views(name))
    yield from removed_tables(name, schema, shape)


def inner_views(name: str) -> list[str]:
    """The views that no reader is told of."""
    return [internal_name(name, view) for view in (*OF_BUILDING, "kept", "settled", "changed")]


def removed_code(name: str, schema: str, reads: Sequence[str], views: Sequence[str]) -> Iterator[Statement]:
    """Drop views, and functions: those that readers call, and all others."""
    private = function_names(name)
    yield from removed_functions(schema, [*reads, *private[: -len(UNDER_VIEWS)]])
    yield from removed_views(schema, views)
    yield from removed_functions(schema, private[-len(UNDER_VIEWS) :])


def removed_views(schema: str, names: Sequence[str]) -> Iterator[Statement]:
    for name in names:
        yield Statement("a view", fill("DROP VIEW IF EXISTS {v}", v=Identifier(schema, name)))


def removed_functions(schema: str, names: Sequence[str]) -> Iterator[Statement]:
    for name in names:
        yield Statement("a function", fill("DROP FUNCTION IF EXISTS {f}", f=Identifier(schema, name)))


def removed_tables(name: str, schema: str, shape: Shape) -> Iterator[Statement]:
    for table in table_names(name, shape):
        yield Statement("a table", fill("DROP TABLE IF EXISTS {t}", t=Identifier(schema, table)))
