"""Names, columns and recurring clauses of one grouped aggregate; what the other parts of the compiler share.

Internal columns have a letter and a number:

| letter | in | holds |
|---|---|---|
| `k` | everywhere | a part of the group key |
| `x`, `f` | source rows | an argument, a filter |
| `w` | rows of an update | weight: -1 for the old row, 1 for the new |
| `n` | state, delta, facet | rows of the group, of a change, of a value |
| `a` | state, delta | an additive component |
| `m` | state | an extreme |
| `i`, `d` | delta | of an extreme: the best value that came (inserted), the best that went (deleted) |
| `v` | delta, facet | a value of a facet |
| `c` | state | the number of distinct values of a facet |
| `h` | state, facet | hash of the key, or of key and value |
| `p`, `u` | delta, chunk | a part of the primary key: of a row, or where a chunk begins; where it ends |

Spelled out are `epoch`, `xact` (the transaction that wrote it), `partition` and `facet` of a delta, and `narrow` (a
B-tree takes the key).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from tallystick.compiler.components import Argument, Components, components_of
from tallystick.compiler.guards import guarded
from tallystick.compiler.snapshot import Snapshot
from tallystick.compiler.text import canonical, column, comma, conjunction, fill, literal
from tallystick.declare.names import internal_name
from tallystick.declare.sqltext import Shape, column_of

WIDE_KEY_BYTES = 2000
"""A B-tree takes entries of about 2,700 bytes; keys from here on are looked up without one."""


@dataclass(frozen=True)
class Layout:
    """One aggregate on its way into SQL."""

    name: str
    schema: str
    shape: Shape
    snapshot: Snapshot
    parts: Components
    version: int
    """Of the definition: readers in a snapshot from before it are served by the source."""
    has_single_rows: bool = False
    """Each group is one row: the primary key is among the group keys."""
    is_resting: bool = False
    """Readers are served by the source alone, and nothing is there to keep anything."""

    @classmethod
    def of(cls, name: str, schema: str, shape: Shape, snapshot: Snapshot, version: int = 1) -> Layout:
        return cls(name, schema, shape, snapshot, components_of(name, shape, snapshot, Identifier(schema)), version)

    @property
    def keys(self) -> list[SQL]:
        return [column("k", index) for index in range(1, len(self.shape.keys) + 1)]

    @property
    def places(self) -> list[SQL]:
        """The primary key of a row that changes while a backfill is under way; an item has it among its keys."""
        if self.has_single_rows:
            return []
        return [column("p", index) for index in range(1, len(self.snapshot.source.primary_key) + 1)]

    @property
    def has_wide_keys(self) -> bool:
        return any(not key.fixed_width for key in self.snapshot.keys)

    def own(self, name: str) -> Identifier:
        """A name in the schema of the installation."""
        return Identifier(self.schema, name)

    def object(self, suffix: str) -> Identifier:
        return self.own(internal_name(self.name, suffix))

    def key_definitions(self) -> list[Composable]:
        return [
            fill(
                "{name} {type}{collation}",
                name=name, type=canonical(key.stored),
                collation=fill(" COLLATE {c}", c=canonical(key.collation)) if key.collation else SQL(""),
            )
            for name, key in zip(self.keys, self.snapshot.keys, strict=True)
        ]  # fmt: skip

    def declared_call(self, name: str) -> Composed:
        measure = next(measure for measure in self.shape.measures if measure.name == name)
        return fill(
            "{function}({distinct}{argument}){filter}",
            function=canonical(measure.function),
            distinct=SQL("DISTINCT ") if measure.distinct else SQL(""),
            argument=canonical(measure.argument or "*"),
            filter=fill(" FILTER (WHERE {f})", f=canonical(measure.filter)) if measure.filter else SQL(""),
        )

    def from_where(self, table: Composable | None = None) -> Composed:
        return fill(
            "FROM {source} AS {alias}{where}",
            source=table or canonical(self.shape.source),
            alias=Identifier(self.shape.alias),
            where=self.where(),
        )

    def where(self) -> Composable:
        return fill(" WHERE {w}", w=canonical(self.shape.where)) if self.shape.where else SQL("")

    def row_items(self, condition: Composable | None = None) -> Composed:
        """Key, argument and filter expressions under their positional names.

        Args:
            condition: what rows must meet before anything is computed of them that could fail.
        """
        items: list[Composable] = []
        for name, key, type_ in zip(self.keys, self.shape.keys, self.snapshot.keys, strict=True):
            expression: Composable = canonical(key.expression)
            if type_.is_domain:
                expression = fill("({e})::{t}", e=expression, t=canonical(type_.stored))
            can_fail = column_of(key.expression) is None
            items.append(fill("{e} AS {k}", e=guarded(expression, condition if can_fail else None), k=name))
        for argument in self.arguments():
            guard = condition if argument.can_fail else None
            items.append(fill("{e} AS {x}", e=guarded(argument.expression, guard), x=argument.name))
        return comma(items)

    def arguments(self) -> list[Argument]:
        """Arguments and filters: all columns of a source row beside its group key."""
        return [*self.parts.arguments, *self.parts.filters]

    def source_rows(self, table: Composable | None = None) -> Composed:
        """The source, or a partition of it, as rows of key, arguments and filters."""
        return fill("(SELECT {items} {source})", items=self.row_items(), source=self.from_where(table))

    def hash_of(self, *columns: Composable) -> Composed:
        """64 bits that agree for equal rows, whatever their spelling (1.0 and 1.00, -0 and 0)."""
        if not columns:
            return Composed([SQL("0::bigint")])
        return fill("hash_record_extended(ROW({columns}), 0)", columns=comma(columns))

    def same(self, left: Composable, right: Composable, columns: Sequence[Composable]) -> Composed:
        """Equality of columns by the types' own `=`, where NULL equals NULL and no search path decides."""
        if not columns:
            return Composed([SQL("true")])
        return fill(
            "record_eq(ROW({left}), ROW({right}))",
            left=comma(dotted(left, c) for c in columns),
            right=comma(dotted(right, c) for c in columns),
        )

    def equal_keys(self, left: Composable, right: Composable, *, null_safe: bool) -> Composed:
        """The same, spelled so that an index or a hash join can serve it."""
        conditions: list[Composable] = []
        for name, key in zip(self.keys, self.snapshot.keys, strict=True):
            parts = {
                "l": dotted(left, name),
                "r": dotted(right, name),
                "op": fill("OPERATOR({schema}.=)", schema=Identifier(key.operator_schema)),
            }
            template = "({l} {op} {r} OR ({l} IS NULL AND {r} IS NULL))" if null_safe else "{l} {op} {r}"
            conditions.append(SQL(template).format(**parts))
        return conjunction(conditions)

    def narrow(self) -> list[Composable]:
        if not self.has_wide_keys:
            return []
        return [fill("pg_column_size(ROW({keys})) < {limit}", keys=comma(self.keys), limit=literal(WIDE_KEY_BYTES))]

    def narrow_column(self, table: Composable | None = None) -> list[Composable]:
        """The column that tells whether a B-tree takes the key, if there is one."""
        if not self.has_wide_keys:
            return []
        return [SQL("narrow")] if table is None else [dotted(table, SQL("narrow"))]

    def has_no_null(self, table: Composable) -> Composed:
        """No part of the group key is NULL."""
        return conjunction(fill("{k} IS NOT NULL", k=dotted(table, key)) for key in self.keys)

    def is_reset(self) -> Composed:
        return fill("EXISTS (SELECT FROM {markers})", markers=self.markers())

    def markers(self) -> Composed:
        """What TRUNCATE of the whole source has left."""
        return fill(
            "{reset} WHERE aggregate = {name} AND partition IS NULL", reset=self.own("reset"), name=literal(self.name)
        )

    def alive(self) -> Composed:
        """No TRUNCATE has made the state void."""
        return fill("NOT {reset}", reset=self.is_reset())

    def is_complete(self) -> Composed:
        """No backfill has to be made, or is under way."""
        return fill(
            "(SELECT phase FROM {aggregate} WHERE name = {name}) = 'kept'",
            aggregate=self.own("aggregate"), name=literal(self.name),
        )  # fmt: skip

    def current_epoch(self) -> Composed:
        """Deltas of a lower epoch are void."""
        return fill("epoch >= coalesce((SELECT max(epoch) FROM {markers}), 0)", markers=self.markers())

    def unfolded(self) -> Composed:
        """No fold that we see has consumed the delta. Spares readers the dead ones that an old snapshot keeps.

        The upper bound, the greatest there is, tells the planner of a range, of which it expects few rows.
        """
        return fill(
            "xact BETWEEN coalesce((SELECT CASE WHEN xmin = folder::xid"
            " AND folder < pg_snapshot_xmax(pg_current_snapshot()) THEN floor END FROM {watermark}), '0')"
            " AND '18446744073709551615'",
            watermark=self.watermark(),
        )

    def watermark(self) -> Composed:
        return fill("{table} WHERE aggregate = {name}", table=self.own("watermark"), name=literal(self.name))

    def is_kept(self) -> Composed:
        """Readers are to be served by the kept half: the switch says so, and triggers find what they need by name."""
        guard = self.guard()
        conditions = [
            fill(
                "(SELECT serving FROM {aggregate} WHERE name = {name} AND version = {version}) = 'kept'",
                aggregate=self.own("aggregate"), name=literal(self.name), version=literal(self.version),
            ),
            fill("to_regprocedure({guard}) = {guard}::regprocedure", guard=guard),
        ]  # fmt: skip
        if self.parts.facets:
            conditions.append(fill("(SELECT {current} FROM {w})", current=self.is_current(), w=self.watermark()))
        return conjunction([*conditions, *self.is_whole()])

    def guard(self) -> Literal:
        """Name of the function without which the triggers do nothing."""
        return literal(self.object("guard").as_string(None) + "()")

    def is_current(self) -> SQL:
        """Hashes were computed by this major version of PostgreSQL, for a row of the watermark."""
        return SQL("major = current_setting('server_version_num')::integer / 10000")

    def is_whole(self) -> list[Composed]:
        """The partitions that are counted are those that the source has, and none of them was truncated alone."""
        if not self.snapshot.source.is_partitioned:
            return []
        return [
            fill(
                "NOT EXISTS (SELECT FROM {reset} WHERE aggregate = {name} AND {epoch}"
                " AND partition IN (SELECT relation FROM {listed}))",
                reset=self.own("reset"), name=literal(self.name), epoch=self.current_epoch(), listed=self.listed(),
            ),
            fill(
                "(SELECT array_agg(ROW(inhrelid, xmin) ORDER BY inhrelid) FROM pg_inherits"
                " WHERE NOT inhdetachpending AND (inhparent = {source}::regclass"
                " OR inhparent IN (SELECT relation FROM {listed})))"
                " IS NOT DISTINCT FROM"
                " (SELECT array_agg(ROW(relation::oid, attached) ORDER BY relation::oid) FROM {listed})",
                source=literal(self.snapshot.source.name), listed=self.listed(),
            ),
        ]  # fmt: skip

    def counted(self) -> list[Composed]:
        """The delta is of a partition that is counted: not of one that came and went between two folds."""
        if not self.snapshot.source.is_partitioned:
            return []
        source = literal(self.snapshot.source.name)
        template = "(partition = {source}::regclass OR partition IN (SELECT relation FROM {listed}))"
        return [SQL(template).format(source=source, listed=self.listed())]

    def listed(self) -> Composed:
        """The partitions that are counted."""
        return fill("{table} WHERE aggregate = {name}", table=self.own("partition"), name=literal(self.name))


def dotted(table: Composable, name: Composable) -> Composed:
    return fill("{table}.{name}", table=table, name=name)
