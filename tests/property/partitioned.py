"""The state machine over a partitioned table: partitions come with rows in them, go, and are truncated."""

from typing import LiteralString

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule
from psycopg import sql

from tallystick.errors import InstallError, NotWhole
from tests.property.machine import LIST, VALUES, Machine, World
from tests.property.world import DECLARED, TABLE, Row, rows

PARTITIONS = """
CREATE TABLE item_low PARTITION OF item FOR VALUES FROM (minvalue) TO (6);
CREATE TABLE item_middle PARTITION OF item FOR VALUES FROM (6) TO (1003) PARTITION BY HASH (id);
CREATE TABLE item_even PARTITION OF item_middle FOR VALUES WITH (modulus 2, remainder 0);
CREATE TABLE item_odd PARTITION OF item_middle FOR VALUES WITH (modulus 2, remainder 1);
CREATE TABLE item_high PARTITION OF item FOR VALUES FROM (1003) TO (100000);
"""
GUEST: LiteralString = "CREATE TABLE guest (LIKE item INCLUDING INDEXES)"
ATTACH: LiteralString = "ALTER TABLE item ATTACH PARTITION guest FOR VALUES FROM (200000) TO (300000)"


class PartitionedWorld(World):
    """The same table in parts; `guest` comes and goes."""

    table = TABLE.rstrip() + " PARTITION BY RANGE (id);" + PARTITIONS

    def reset(self) -> None:
        self.writer.execute("DROP TABLE IF EXISTS guest")
        super().reset()


class PartitionedMachine(Machine):
    """While the partitions are not those that are counted, readers are served by the source, which is exact."""

    @initialize()
    def empty(self) -> None:
        super().empty()
        self.guest = "absent"  # or "apart", "attached"
        self.is_broken = False  # something went or was truncated behind our back

    @precondition(lambda self: self.guest == "absent" and self.is_quiet)
    @rule(several=st.lists(rows, max_size=3))
    def attach(self, several: list[Row]) -> None:
        self.writer.execute(GUEST)
        for number, row in enumerate(several):
            statement = sql.SQL("INSERT INTO guest (id, {columns}) SELECT {id}, v.* FROM (VALUES {row}) AS v").format(
                columns=LIST, id=200000 + number, row=VALUES
            )
            self.writer.execute(statement, list(row))
        self.writer.execute(ATTACH)
        self.guest = "attached"

    @precondition(lambda self: self.guest == "attached" and self.is_quiet)
    @rule()
    def detach(self) -> None:
        try:
            self.tally.detach(self.engine, "guest")
        except NotWhole:
            assert self.is_broken  # what a partition truncated by itself has lost, nobody can count out
        else:
            self.guest = "apart"

    @precondition(lambda self: self.guest == "attached" and self.is_quiet)
    @rule(how=st.sampled_from(["ALTER TABLE item DETACH PARTITION guest", "DROP TABLE guest"]))
    def take_away(self, how: LiteralString) -> None:
        self.writer.execute(how)
        self.guest = "apart" if how.startswith("ALTER") else "absent"
        self.is_broken = True

    @precondition(lambda self: self.guest == "apart" and self.is_quiet)
    @rule()
    def bring_back(self) -> None:
        """With other rows than it went with."""
        self.writer.execute("UPDATE guest SET n = 7, k = 1; DELETE FROM guest WHERE id % 2 = 0")
        self.writer.execute(ATTACH)
        self.guest = "attached"

    @precondition(lambda self: self.is_quiet)
    @rule(partition=st.sampled_from(["item_low", "item_middle", "item_even", "item_high"]))
    def truncate_alone(self, partition: LiteralString) -> None:
        truncate: LiteralString = "TRUNCATE "
        self.writer.execute(truncate + partition)
        self.is_broken = True

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from([None, *DECLARED]))
    def fold(self, name: str | None) -> None:
        """A fold adopts what came; what went or was truncated it reports, and leaves to a backfill."""
        try:
            self.tally.fold(self.engine, only=name and [name])
        except NotWhole:
            assert self.is_broken
        except InstallError:
            self._check_that_writers_are_in_it()
        else:
            assert not any(found.uncounted for found in self.tally.status(self.engine) if found.name == name)

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from([None, *DECLARED]))
    def backfill(self, name: str | None) -> None:
        try:
            self.tally.backfill(self.engine, only=name and [name])
        except InstallError:
            self._check_that_writers_are_in_it()
        else:
            self.is_broken = self.is_broken and name is not None

    def _check_that_writers_are_in_it(self) -> None:
        """A new partition gets a trigger, and a backfill that begins anew other triggers, once writers have left."""
        assert self.guest == "attached" or self.is_broken
        assert self.is_open or self.prepared
