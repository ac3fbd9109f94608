"""A grouped aggregate as SQL: the whole installation, in order, as named statements.

Objects of an aggregate `x` in the schema of the installation:

- `x__direct`: the declared query, a view;
- `x__row(source)`: a source row's group key, arguments and filters; no row where the WHERE clause does not hold.
  It names columns by the parsed references that PostgreSQL keeps, so renaming or moving the table changes nothing;
- `x__state`, `x__facet<i>`: folded components per group, and rows per distinct value;
- `x__delta`: appended signed changes;
- `x__insert()`, `x__delete()`, `x__change()`, `x__truncate()`: capture, in the writer's transaction; `x__guard()`;
- `x__settled`, `x__changed`: views of the groups without and with unfolded deltas; `x__kept`: both;
- `x__front`, `x__rest`: the same under the switch, `x__rest` with the direct half; `x`: both, what readers use;
- `x__fold()`, `x__rebuild()`: deltas into state; state from the source;
- `x__repair()`: groups that drift, from the source;
- `x__chunk`, `x__counted`, `x__begin()`, `x__extend()`, `x__count()`, `x__settle()`: a backfill in chunks;
- `x__place()`, `x__places`, `x__rows`: where rows stand in it, only while a backfill is due or under way;
- `x__adopt()`, `x__release()`: partitions that come and go, of a partitioned source;
- `x__mirror`, `x__note()`, `x__copy()`: copies in a parent table, if there are any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.building import building_objects
from tallystick.compiler.capture import capture_statements
from tallystick.compiler.folding import folding_statements
from tallystick.compiler.grouped_chunks import grouped_chunks
from tallystick.compiler.layout import Layout
from tallystick.compiler.mirror import mirror_statements, mirror_table
from tallystick.compiler.partitions import partition_statements
from tallystick.compiler.repairing import repair_statements
from tallystick.compiler.snapshot import Snapshot
from tallystick.compiler.tables import additive_definitions, delta_table, table, unlogged
from tallystick.compiler.text import Statement, canonical, comma, fill
from tallystick.compiler.views import resting_views, view_statements
from tallystick.declare.sqltext import Shape


@dataclass(frozen=True, slots=True)
class Compiled:
    """What installs an aggregate.

    Attributes:
        objects: everything that touches nothing but the installation's own schema.
        triggers: what needs the source locked against writers.
    """

    objects: tuple[Statement, ...]
    triggers: tuple[Statement, ...]


def compile_grouped(name: str, schema: str, shape: Shape, snapshot: Snapshot, version: int = 1) -> Compiled:
    """Compile a grouped aggregate.

    Args:
        name: of the aggregate; its view gets this name.
        schema: of the installation.
        shape: of the canonical declaration, as PostgreSQL printed it.
        snapshot: what the catalog says about it.
        version: of the definition, counted by those who redefine it.
    Raises:
        DeclarationError: a measure over a type that cannot be kept.
    """
    layout = Layout.of(name, schema, shape, snapshot, version)
    functions, triggers = capture_statements(layout)
    objects = [_direct(layout), *_tables(layout), *functions, *view_statements(layout), *folding_statements(layout)]
    objects += repair_statements(layout)
    objects += [*building_objects(schema, name, snapshot.source), *grouped_chunks(layout)]
    if snapshot.source.is_partitioned:
        objects += partition_statements(layout)
    if snapshot.mirror is not None:
        objects += mirror_statements(layout, snapshot.mirror)
    return Compiled(tuple(objects), tuple(triggers))


def resting_grouped(name: str, schema: str, shape: Shape, snapshot: Snapshot) -> list[Statement]:
    """What readers of a grouped aggregate name while nothing of it is kept: the declared query.

    It needs the functions of the installation, and none of its tables.
    """
    layout = Layout.of(name, schema, shape, snapshot)
    return [_direct(layout), *resting_views(layout)]


def _direct(layout: Layout) -> Statement:
    """The declared query again, except for what cannot be defined without a fixed order: floating point sums."""
    shape, replaced = layout.shape, layout.parts.direct
    keys = {key.name: key.expression for key in shape.keys}
    items: list[Composable] = []
    for name in shape.columns:
        if name in keys:
            expression: Composable = canonical(keys[name])
        elif name in replaced:
            expression = replaced[name]
        else:
            expression = layout.declared_call(name)
        items.append(fill("{expression} AS {name}", expression=expression, name=Identifier(name)))
    group_by = fill(" GROUP BY {keys}", keys=comma(canonical(key.expression) for key in shape.keys))
    sql = fill(
        "CREATE VIEW {view} AS\nSELECT {items}\n{source}{group_by}",
        view=layout.object("direct"), items=comma(items), source=layout.from_where(),
        group_by=group_by if shape.keys else SQL(""),
    )  # fmt: skip
    return Statement("the declared query: what the kept answer must equal", sql)


def _tables(layout: Layout) -> Iterator[Statement]:
    parts, keys, logged = layout.parts, layout.key_definitions(), unlogged(layout)
    narrow = [SQL("narrow boolean NOT NULL")] if layout.has_wide_keys else []
    state: list[Composable] = [*narrow, *keys, _hash(layout, layout.keys), SQL("n bigint NOT NULL")]
    state += additive_definitions(layout)
    state += [fill("{m} {t}{c}", m=e.kept, t=e.type, c=e.collation) for e in parts.extremes]
    state += [fill("{c} bigint", c=facet.distinct) for facet in parts.facets]
    yield Statement("folded components of each group", table(logged, layout.object("state"), state, SQL("")))
    yield delta_table(layout)
    for facet in parts.facets:
        value = fill("{v} {t}{c}", v=facet.value, t=facet.type, c=facet.collation)
        columns = [*keys, value, _hash(layout, [*layout.keys, facet.value]), SQL("n bigint NOT NULL")]
        name = layout.object(f"facet{facet.index}")
        yield Statement("rows per distinct value of each group", table(logged, name, columns, SQL("")))
        yield Statement("finds a value", fill("CREATE INDEX ON {table} (h)", table=name))
    yield Statement("finds a group when folding", fill("CREATE INDEX ON {table} (h)", table=layout.object("state")))
    if layout.snapshot.mirror is not None:
        yield mirror_table(layout)
    if layout.shape.keys:
        yield from _key_indexes(layout)
    else:
        yield Statement("finds the unfolded", fill("CREATE INDEX ON {t} (xact)", t=layout.object("delta")))


def _hash(layout: Layout, columns: Sequence[Composable]) -> Composed:
    """Hashes of some types, enums among them, differ between databases: a restore computes generated columns anew."""
    return fill("h bigint GENERATED ALWAYS AS ({hash}) STORED", hash=layout.hash_of(*columns))


def _key_indexes(layout: Layout) -> Iterator[Statement]:
    where = SQL(" WHERE narrow") if layout.has_wide_keys else SQL("")
    tables: list[tuple[str, list[Composable]]] = [("state", []), ("delta", [SQL("xact")])]
    for suffix, last in tables:
        yield Statement(
            f"finds a group's {suffix} when reading",
            fill(
                "CREATE INDEX ON {table} ({keys}){where}",
                table=layout.object(suffix), keys=comma([*layout.keys, *last]), where=where,
            ),
        )  # fmt: skip
        if layout.has_wide_keys:
            yield Statement(
                f"lists the {suffix} of groups whose key is too wide for a B-tree",
                fill(
                    "CREATE INDEX ON {table} ({first}) WHERE NOT narrow",
                    table=layout.object(suffix), first=comma(last or [SQL("narrow")]),
                ),
            )  # fmt: skip
    for result in layout.parts.results:
        if result.can_rank:
            yield Statement(
                "orders the groups by a measure",
                fill(
                    "CREATE INDEX ON {table} (({value}) DESC NULLS LAST, {keys}){where}",
                    table=layout.object("state"), value=result.value, keys=comma(layout.keys), where=where,
                ),
            )  # fmt: skip
