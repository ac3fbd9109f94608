"""What an ordered aggregate takes: room, and the time of its folds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Identifier
from sqlalchemy import Engine

from tallystick.bench.figures import Figure
from tallystick.bench.ordered_source import Timeline
from tallystick.bench.place import qualified, settle
from tallystick.compiler.text import fill, literal
from tallystick.declare.names import internal_name
from tallystick.maintain.source_index import index_name
from tallystick.store.connection import transaction


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured."""

    rounds: int
    deltas: int


class Upkeep:
    """A long timeline, and what belongs to its aggregate."""

    def __init__(self, engine: Engine, sizes: Sizes, timeline: Timeline) -> None:
        self.engine, self.sizes, self.timeline = engine, sizes, timeline
        kept = timeline.kept
        self.bucket, self.delta = (
            Identifier(kept.schema, internal_name(kept.name, suffix)) for suffix in ("bucket", "delta")
        )
        self.index = Identifier(timeline.table.schema or "public", index_name(kept.schema, kept.name))

    def storage(self) -> Iterator[Figure]:
        """After a fold that nothing has vacuumed."""
        source = self._bytes("pg_table_size", qualified(self.timeline.table))
        for what, function, relation in (
            ("buckets and their index", "pg_total_relation_size", self.bucket),
            ("deltas and their index, after a fold and before a vacuum", "pg_total_relation_size", self.delta),
            ("the index of the source, where it had to be made", "pg_relation_size", self.index),
        ):
            size = self._bytes(function, relation)
            yield Figure(
                f"{what}, size over that of the source without indexes", "ratio", [size / source],
                baseline=source, candidate=size,
            )  # fmt: skip

    def folds(self) -> Iterator[Figure]:
        deltas = self.sizes.deltas
        yield self._rate(f"fold of {deltas:,} deltas, appended", self.timeline.append)
        yield self._rate(f"fold of {deltas:,} deltas, at random places", self.timeline.scatter)

    def _rate(self, what: str, write: Callable[[int], None]) -> Figure:
        def once() -> float:
            write(self.sizes.deltas)
            settle(self.engine, qualified(self.timeline.table), self.bucket, self.delta)
            return self.timeline.fold()

        return Figure(what, "deltas per second", [once() for _ in range(self.sizes.rounds)])

    def _bytes(self, function: str, relation: Composable) -> int:
        with transaction(self.engine, read_only=True) as cursor:
            found = cursor.execute(
                fill("SELECT {f}({r})", f=SQL(function), r=literal(relation.as_string(None)))
            ).fetchall()
        return int(found[0][0])
