"""`Tally`: the registry with the life cycle on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Engine

from tallystick.declare.grouped import Grouped
from tallystick.declare.registry import Registry
from tallystick.errors import UsageError
from tallystick.maintain import folding, install, partitions, status, verify
from tallystick.maintain.doctor import Finding, examine
from tallystick.maintain.folding import BackfillResult, FoldResult
from tallystick.maintain.install import Planned
from tallystick.maintain.mirror import BATCH
from tallystick.maintain.status import AggregateStatus
from tallystick.maintain.verify import VerifyReport


class Tally(Registry):
    """Declared aggregates of one schema, and the operations that carry them through their life.

    Every operation takes a synchronous engine over `postgresql+psycopg`, runs in transactions of its own, and works on
    all declared aggregates or, with `only`, on those named.
    """

    def plan(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[Planned]:
        """What `install` would run; the database is left as it was."""
        return [install.plan(engine, aggregate) for aggregate in self._chosen(only)]

    def install(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[str]:
        """Install what is not installed yet, each aggregate wholly or not at all; names of those installed now.

        Until it is backfilled, an aggregate answers from its source: slower, never wrong.
        """
        return [aggregate.name for aggregate in self._chosen(only) if install.install(engine, aggregate)]

    def backfill(
        self,
        engine: Engine,
        *,
        only: Sequence[str] | None = None,
        batch_size: int = BATCH,
        skip_existing: bool = True,
    ) -> list[BackfillResult]:
        """Compute the state of aggregates from their sources beside writers, and let readers use it.

        Args:
            only: names; all declared aggregates without it.
            batch_size: of a mirror, parents in one transaction.
            skip_existing: of a mirror, leave parents alone that have a value.
        """
        return [
            folding.backfill(engine, self.schema, aggregate.name, batch_size=batch_size, skip_existing=skip_existing)
            for aggregate in self._chosen(only)
        ]

    def fold(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[FoldResult]:
        """Fold visible deltas into the state. This bounds the cost of reads; it never changes an answer."""
        return [folding.fold(engine, self.schema, aggregate.name) for aggregate in self._chosen(only)]

    def verify(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[VerifyReport]:
        """Compare kept and direct, each aggregate in one snapshot."""
        return [verify.verify(engine, self.schema, aggregate.name) for aggregate in self._chosen(only)]

    def status(self, engine: Engine) -> list[AggregateStatus]:
        """Every aggregate that is declared here or installed in the schema."""
        return status.status(engine, self.schema, self)

    def doctor(self, engine: Engine) -> list[Finding]:
        """What is wrong or will be, each finding with the command that mends it; none if all is well."""
        return examine(engine, self.schema, self)

    def detach(self, engine: Engine, partition: str) -> list[str]:
        """Detach a partition (schema.table) and count it out of every aggregate of the schema; names of these."""
        return partitions.detach(engine, self.schema, partition)

    def uninstall(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[str]:
        """Remove aggregates with all their objects; names of those removed."""
        names = [aggregate.name for aggregate in self._chosen(only)]
        for name in names:
            install.uninstall(engine, self.schema, name)
        return names

    def _chosen(self, only: Sequence[str] | None) -> Iterable[Grouped]:
        if isinstance(only, str):
            raise UsageError(f"only={only!r} is a string.", hint=f"Pass a list: only=[{only!r}].")
        return list(self) if only is None else [self[name] for name in only]
