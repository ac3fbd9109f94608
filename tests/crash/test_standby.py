"""A streaming replica: reads there are exact for its snapshot, and after its promotion maintenance goes on."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import NullPool

from tallystick.embedded import Cluster
from tallystick.maintain.pace import LAG_BYTES, LOOK_AGAIN_S, LOOKS, Pace
from tallystick.store.activity import replica_lag
from tests.backfills import Noted
from tests.conftest import RELEASES
from tests.crash import world
from tests.crash.world import DEADLINE_S, Load, Repeated
from tests.oracle import differences
from tests.order_oracle import OrderOracle
from tests.servers import SETTINGS, Connection, Release, Server, Servers

# Replay waits for readers, and the primary keeps the rows that they see.
REPLICATED = f"""
{SETTINGS}
max_standby_streaming_delay = -1
hot_standby_feedback = on
"""


@dataclass
class Pair:
    """A primary and its standby, which is a copy by pg_basebackup; both have the database of the test."""

    primary: Server
    standby: Server
    database: str

    def at_primary(self) -> Connection:
        return self.primary.connect(self.database)

    def at_standby(self) -> Connection:
        return self.standby.connect(self.database, autocommit=True)

    def engine(self, server: Server) -> Engine:
        return create_engine(server.url(self.database), poolclass=NullPool)

    def until_replayed(self) -> None:
        """Return when the standby has replayed what the primary has written so far."""
        with self.at_primary() as connection:
            (written,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone() or ("0/0",)
        deadline = monotonic() + DEADLINE_S
        with self.standby.connect(autocommit=True) as connection:  # the database may have to be replayed as well
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            while connection.execute(query, [written]).fetchone() != (True,):
                assert monotonic() < deadline


@pytest.fixture(params=RELEASES, ids=lambda release: f"pg{release.major}")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    release: Release = request.param
    running, home = Servers(REPLICATED), Path(tempfile.mkdtemp(prefix="tally-")).resolve()
    try:
        primary = running.get(release)
        account = primary.cluster.account
        shutil.chown(home, account.pw_uid)
        cluster = Cluster(home / str(release.major), primary.cluster.programs, account)
        command = [cluster.programs / "pg_basebackup", "-h", primary.cluster.data, "-p", "5432", "-U", "postgres",
                   "-D", cluster.data, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]  # fmt: skip
        subprocess.run([*map(str, command)], user=account.pw_uid, group=account.pw_gid, cwd="/", check=True)
        cluster.ensure()
        yield Pair(primary, Server(release, cluster), primary.create_database("template1"))
        cluster.halt()
    finally:
        running.close()
        shutil.rmtree(home)


@pytest.mark.slow
def test_reads_while_the_primary_is_written_and_folded(pair: Pair) -> None:
    """Each reader compares both halves in one snapshot, which it keeps over further writes and folds."""
    engine, replicated = pair.engine(pair.primary), world.logged()
    tally = world.build(engine, pair.at_primary())
    folding = Repeated(partial(tally.fold, engine))
    pair.until_replayed()
    with pair.at_standby() as reader:
        order = OrderOracle(reader, replicated)
        for number in range(4):
            load = Load(pair.at_primary)
            load.until_committed(20)
            with reader.transaction():
                reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                for _ in range(2):
                    assert differences(reader, replicated) == []
                    assert reader.execute(world.MISCOUNTED).fetchall() == []
                    load.until_committed(20)
                load.stop()
                order.check()
            if number == 2:
                tally.backfill(engine, force=True, chunk_rows=500)
    folding.stop()
    world.check_copies(engine, tally)
    pair.until_replayed()
    with pair.at_standby() as reader, pair.at_primary() as writer:
        assert reader.execute(world.STALE).fetchall() == []
        for aggregate in replicated:
            view = aggregate.table.select().compile().string
            assert sorted(map(str, reader.execute(view.encode()).fetchall())) == sorted(
                map(str, writer.execute(view.encode()).fetchall())
            )


@pytest.mark.slow
def test_a_backfill_rests_for_a_replica_that_lags(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """Not for ever: a replica may lag on purpose. A role that may not see how far they are is told what it lacks."""
    pair.primary.create_role("counts")
    engine, noted, unseeing = pair.engine(pair.primary), Noted(), Noted()
    as_owner = create_engine(pair.primary.url(pair.database).set(username="counts"), poolclass=NullPool)
    pace, blind = Pace(engine, "tally", 1, None, noted), Pace(as_owner, "tally", 1, None, unseeing)
    pair.until_replayed()
    pace.rest(1, took_s=1.0)
    assert (noted.waits, caplog.messages) == ([0], [])
    with pair.at_standby() as standby, pair.at_primary() as primary:
        standby.execute("SELECT pg_wal_replay_pause()")
        for _ in range(LAG_BYTES // 2**20 + 8):  # the last of it is written a little later
            primary.execute("SELECT pg_logical_emit_message(false, 'tests', repeat('x', 1024 * 1024))")
        for _ in range(2):
            noted.waits.clear()
            pace.rest(1, took_s=1.0)
            assert noted.waits == [0, *[LOOK_AGAIN_S] * LOOKS]
            blind.rest(1, took_s=1.0)
        assert unseeing.waits == [0, 0]
        rests, cannot_see = caplog.messages
        assert rests.startswith("The backfill rests: a replica has ")
        assert cannot_see.endswith('how far they are. Run: GRANT pg_read_all_stats TO "counts"')
        standby.execute("SELECT pg_wal_replay_resume()")
    deadline = monotonic() + DEADLINE_S
    with pair.at_primary() as primary:
        primary.autocommit = True
        while (replica_lag(primary.cursor()) or 0) > LAG_BYTES:  # the standby tells a moment after it has replayed
            assert monotonic() < deadline
    noted.waits.clear()
    pace.rest(1, took_s=1.0)
    assert noted.waits == [0]


@pytest.mark.slow
def test_promotion_under_load(pair: Pair) -> None:
    """The primary is gone in the middle of everything; nothing committed is missing at the synchronous standby."""
    engine, promoted = pair.engine(pair.primary), pair.engine(pair.standby)
    tally = world.build(engine, pair.at_primary())
    with pair.primary.connect(autocommit=True) as superuser:
        superuser.execute("ALTER SYSTEM SET synchronous_commit = on")
        superuser.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        superuser.execute("SELECT pg_reload_conf()")
    load = Load(pair.at_primary)
    folding, counting = (
        Repeated(partial(tally.fold, engine)),
        Repeated(partial(tally.backfill, engine, force=True, chunk_rows=300)),
    )
    counting.until_begun()
    load.until_committed(60)
    world.cut_power(pair.primary.cluster)
    committed = load.end()
    folding.stop()
    counting.stop()
    with pair.at_standby() as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)
        connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        connection.execute("SELECT pg_reload_conf()")
    world.check(promoted, tally, committed)
    load, folding = Load(partial(pair.standby.connect, pair.database)), Repeated(partial(tally.fold, promoted))
    load.until_committed(30)
    tally.backfill(promoted)
    load.until_committed(30)
    committed |= load.stop()
    folding.stop()
    world.check(promoted, tally, committed)
    world.check_copies(promoted, tally)
    assert all(report.is_exact for report in tally.verify(promoted))
