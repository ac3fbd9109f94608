"""`Tally`: the registry with the life cycle on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Engine

from tallystick.declare.counter import Counter
from tallystick.declare.ordered import Kept
from tallystick.declare.registry import Registry
from tallystick.errors import UsageError
from tallystick.maintain import (
    audit,
    backfill,
    counters,
    folding,
    install,
    partitions,
    redefine,
    rename,
    repair,
    status,
    switch,
    upgrade,
    verify,
)
from tallystick.maintain.backfill import CHUNK_ROWS, BackfillResult, Manner, Told
from tallystick.maintain.counters import CounterCheck
from tallystick.maintain.doctor import Finding, examine
from tallystick.maintain.folding import FoldResult
from tallystick.maintain.install import Planned
from tallystick.maintain.mirror import BATCH
from tallystick.maintain.redefine import Redefined
from tallystick.maintain.repair import RepairResult
from tallystick.maintain.source_index import Told as Passing
from tallystick.maintain.status import AggregateStatus
from tallystick.maintain.switch import Resumed, RolledBack
from tallystick.maintain.upgrade import Upgraded
from tallystick.maintain.verify import VerifyReport

_log = logging.getLogger(__name__)


class Tally(Registry):
    """Declared aggregates of one schema, and the operations that carry them through their life.

    Every operation takes a synchronous engine over `postgresql+psycopg`, runs in transactions of its own, and works on
    all declared aggregates or, with `only`, on those named.
    """

    def plan(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[Planned]:
        """What `install` would run; the database is left as it was."""
        return [
            counters.plan(engine, each) if isinstance(each, Counter) else install.plan(engine, each)
            for each in self._chosen(only)
        ]

    def install(self, engine: Engine, *, only: Sequence[str] | None = None, told: Passing = _log.warning) -> list[str]:
        """Install what is not installed yet, each aggregate wholly or not at all; names of those installed now.

        Until it is backfilled, an aggregate answers from its source: slower, never wrong. A counter counts from 0.

        Args:
            told: is told whom the build of an index for an ordered aggregate waits for; a warning is logged without it.
        """
        return [
            each.name
            for each in self._chosen(only)
            if (
                counters.install(engine, each)
                if isinstance(each, Counter)
                else install.install(engine, each, told=told)
            )
        ]

    def backfill(
        self,
        engine: Engine,
        *,
        only: Sequence[str] | None = None,
        force: bool = False,
        chunk_rows: int = CHUNK_ROWS,
        workers: int = 1,
        max_rows_per_second: int | None = None,
        batch_size: int = BATCH,
        skip_existing: bool = True,
        told: Told | None = None,
    ) -> list[BackfillResult]:
        """Compute what is kept of aggregates from their sources beside writers, and let readers use it.

        Goes on with what an earlier call has left; what is complete is left as it is. Counters are set to what their
        direct queries give; those without one are left out, unless named.

        Args:
            only: names; all declared aggregates without it.
            force: begin anew what is complete, or begun; readers are served by the source until it has ended.
            chunk_rows: rows that are counted in one transaction, about.
            workers: transactions at a time.
            max_rows_per_second: of all workers together; as many as can be without it.
            batch_size: of a mirror, parents in one transaction.
            skip_existing: of a mirror, leave parents alone that have a value.
            told: is told how far an aggregate has come, after each chunk or batch.
        """
        manner = Manner(chunk_rows, workers, max_rows_per_second, batch_size, skip_existing)
        return [
            counters.backfill(engine, self.schema, each.name)
            if isinstance(each, Counter)
            else backfill.backfill(engine, self.schema, each.name, manner, force=force, told=told)
            for each in self._with_direct(only)
        ]

    def fold(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[FoldResult]:
        """Fold visible deltas into the state, and rows of counters into their shards.

        This bounds the cost of reads; it never changes an answer.
        """
        return [
            (counters.fold if isinstance(each, Counter) else folding.fold)(engine, self.schema, each.name)
            for each in self._chosen(only)
        ]

    def verify(
        self, engine: Engine, *, only: Sequence[str] | None = None, sample: int | None = None, rolling: bool = False
    ) -> list[VerifyReport]:
        """Compare kept and direct, each aggregate in one snapshot; counters without a direct query only if named.

        Args:
            sample: compare so many groups, or buckets of an ordered aggregate, taken at random. Counters are compared
                whole.
            rolling: part by part, each in a short snapshot of its own, going on where an interrupted pass was left.
        """
        return [self._verify(engine, each, sample, rolling=rolling) for each in self._with_direct(only)]

    def repair(self, engine: Engine, *, only: Sequence[str] | None = None, dry_run: bool = False) -> list[RepairResult]:
        """Correct what differs from the source, each aggregate in one snapshot, beside writers; leave the rest alone.

        Counters are left out, and refused if named: `backfill` sets one from its direct query.

        Args:
            dry_run: tell what would be changed, and change nothing.
        """
        names = self._without_counters(only, repair.refuse_counters)
        return [repair.repair(engine, self.schema, name, dry_run=dry_run) for name in names]

    def rollback(
        self, engine: Engine, *, only: Sequence[str] | None = None, stop_maintenance: bool = False
    ) -> list[RolledBack]:
        """Put all readers on the source at once, waiting for nobody, until `resume`. Triggers and folds go on.

        Counters have no switch: they are left out, and refused if named.

        Args:
            stop_maintenance: take the triggers off the sources too, so that nothing is kept any more.
        Raises:
            UsageError: a counter is named; nothing was done.
        """
        names = self._without_counters(only, switch.refuse_counters)
        return [switch.rollback(engine, self.schema, name, stop_maintenance=stop_maintenance) for name in names]

    def resume(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[Resumed]:
        """Verify aggregates that were rolled back, and put readers on the kept half of those that are exact."""
        names = self._without_counters(only, switch.refuse_counters)
        return [switch.resume(engine, self.schema, name) for name in names]

    def check_counter(self, engine: Engine, name: str, keys: Sequence[str] | None = None) -> list[CounterCheck]:
        """Lay a counter beside its direct query in one snapshot: all keys that differ, or those asked for."""
        return counters.checks(engine, self.schema, name, keys)

    def redefine(
        self,
        engine: Engine,
        *,
        only: Sequence[str] | None = None,
        chunk_rows: int = CHUNK_ROWS,
        workers: int = 1,
        max_rows_per_second: int | None = None,
        told: Passing = _log.warning,
        progress: Told | None = None,
    ) -> list[Redefined]:
        """Have installed aggregates keep what is declared now: built beside the present ones, which answer meanwhile.

        Counters take over their settings by `install`, and are left out.

        Args:
            only: names; all declared aggregates without it.
            chunk_rows, workers, max_rows_per_second: of the backfill, as `backfill` takes them.
            told: is told whom the build of an index for an ordered aggregate waits for; a warning is logged without it.
            progress: is told how far the backfill has come.
        """
        manner = Manner(chunk_rows, workers, max_rows_per_second)
        return [
            redefine.redefine(engine, each, manner, told=told, progress=progress)
            for each in self._chosen(only)
            if not isinstance(each, Counter)
        ]

    def rename(self, engine: Engine, old: str, new: str) -> None:
        """Give an installed aggregate the name under which it is declared now; what is kept, and grants, stay.

        Raises:
            UsageError: `new` is not declared, or is a counter.
        """
        declared = self.declared(new)
        if isinstance(declared, Counter):
            raise UsageError(
                f'counter "{new}": counters cannot be renamed.', hint="Add its values to a counter of the new name."
            )
        rename.rename(engine, old, declared)

    def status(self, engine: Engine) -> list[AggregateStatus]:
        """Every aggregate that is declared here or installed in the schema."""
        return status.status(engine, self.schema, self.kept(), self.counters.values())

    def doctor(self, engine: Engine) -> list[Finding]:
        """What is wrong or will be, each finding with the command that mends it; none if all is well."""
        return examine(engine, self.schema, self.kept(), self.counters.values())

    def detach(self, engine: Engine, partition: str) -> list[str]:
        """Detach a partition (schema.table) and count it out of every aggregate of the schema; names of these."""
        return partitions.detach(engine, self.schema, partition)

    def upgrade(self, engine: Engine, *, told: Passing = _log.info) -> Upgraded:
        """Bring an installation of an earlier layout to that of this version, beside readers and writers.

        Aggregates that were made anew answer from their sources until they are backfilled.

        Args:
            told: is told what is being done.
        """
        return upgrade.upgrade(engine, self.schema, self.kept(), told=told)

    def uninstall(self, engine: Engine, *, only: Sequence[str] | None = None) -> list[str]:
        """Remove aggregates with all their objects; names of those removed.

        Args:
            only: names, also of what is installed and not declared any more.
        """
        names = [each.name for each in self._chosen(only)] if only is None or isinstance(only, str) else list(only)
        counted = counters.installed_names(engine, self.schema)
        for name in names:
            (counters.uninstall if name in counted else install.uninstall)(engine, self.schema, name)
        return names

    def _verify(self, engine: Engine, each: Kept | Counter, sample: int | None, *, rolling: bool) -> VerifyReport:
        if isinstance(each, Counter):
            return counters.verify(engine, self.schema, each.name)
        if rolling:
            return audit.verify_rolling(engine, self.schema, each.name)
        return verify.verify(engine, self.schema, each.name, sample=sample)

    def _with_direct(self, only: Sequence[str] | None) -> list[Kept | Counter]:
        chosen = self._chosen(only)
        return [each for each in chosen if only or not isinstance(each, Counter) or each.definition is not None]

    def _without_counters(self, only: Sequence[str] | None, refuse: Callable[[Iterable[str]], None]) -> list[str]:
        chosen = self._chosen(only)
        refuse(each.name for each in chosen if only and isinstance(each, Counter))
        return [each.name for each in chosen if not isinstance(each, Counter)]

    def _chosen(self, only: Sequence[str] | None) -> list[Kept | Counter]:
        if isinstance(only, str):
            raise UsageError(f"only={only!r} is a string.", hint=f"Pass a list: only=[{only!r}].")
        if only is None:
            return [*self.kept(), *self.counters.values()]
        return [self.declared(name) for name in only]
