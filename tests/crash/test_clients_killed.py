"""kill -9 of the processes of `tally`, wherever they wait and under load, two at a time: kept equals direct."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import URL, Engine

from tallystick import Tally
from tests.conftest import Connect
from tests.crash import world
from tests.crash.world import DEADLINE_S, Load
from tests.oracle import assert_exact
from tests.servers import Connection
from tests.stepping import BLOCKED

TALLY = "import sys; from tallystick.cli import main; sys.exit(main())"
ROOT = Path(__file__).parents[2]
COMMANDS = {
    "fold": ["fold", "--schema", "tally"],
    "backfill": ["backfill", "--schema", "tally", "--force", "--chunk-rows", "500", "--workers", "2"],
    "repair": ["repair", "--schema", "tally"],
}
REDEFINE = ["redefine", "authors", "--app", "tests.crash.world:wide", "--chunk-rows", "300"]
STEPS = [b"installing", b"backfilling", b"authors: 300 of ", b"verifying", b"switching"]
# A table that a command waits for shows that it has come so far; one aggregate of each kind is enough.
TABLES: LiteralString = """
SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND (
    oid IN ('message'::regclass, 'chat'::regclass) OR relnamespace = 'tally'::regnamespace
    AND relname ~ '^(aggregate|watermark|counter_shard|by_chat__.*|by_author__facet.*|by_size__bucket)$'
)
ORDER BY random()
"""


def _damage(engine: Engine, command: str) -> None:
    """Give it something to do."""
    if command == "repair":
        world.damage(engine)


def _mend(engine: Engine, tally: Tally, command: str) -> None:
    """What is damaged is not exact until it is repaired."""
    if command == "repair":
        tally.repair(engine, only=[*world.DAMAGE])


@dataclass
class Victim:
    """A process of `tally`, and its session, which is known by its name."""

    process: subprocess.Popen[bytes]
    watcher: Connection
    name: str

    @property
    def sessions(self) -> list[tuple[int]]:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        return self.watcher.execute(query, [self.name]).fetchall()

    def until_waiting(self) -> bool:
        """Return whether it waits for somebody's lock, or False when it has ended without."""
        deadline = monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert monotonic() < deadline
            if any(self.watcher.execute(BLOCKED, pid).fetchone() == (True,) for pid in self.sessions):
                return True
        return False

    def kill(self) -> None:
        self.process.kill()
        assert self.process.wait(DEADLINE_S) == -signal.SIGKILL

    def until_gone(self) -> None:
        """The server ends a session when it would answer and nobody is there; until then it works on."""
        deadline = monotonic() + DEADLINE_S
        while self.sessions:
            assert monotonic() < deadline


Start = Callable[..., Victim]


@pytest.fixture
def start(database: URL, connect: Connect) -> Iterator[Start]:
    """Start a command over all that is installed; what is left of it is killed at the end."""
    watcher = connect(autocommit=True)
    with ExitStack() as opened:

        def run(command: list[str], stdout: int = subprocess.DEVNULL) -> Victim:
            name = f"victim {random.getrandbits(32)}"
            url = database.set(drivername="postgresql").update_query_dict({"application_name": name})
            process = subprocess.Popen(
                [sys.executable, "-c", TALLY, *command, "--dsn", url.render_as_string()],
                cwd=ROOT, stdout=stdout, stderr=subprocess.STDOUT,
            )  # fmt: skip
            opened.callback(process.wait, DEADLINE_S)
            opened.callback(process.kill)
            return Victim(process, watcher, name)

        yield run


@pytest.fixture
def tally(engine: Engine, connect: Connect) -> Tally:
    """The aggregates of the world, serving."""
    return world.build(engine, connect())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_wherever_it_waits(engine: Engine, connect: Connect, tally: Tally, start: Start, command: str) -> None:
    """At each table in turn; half-way, its session works on by itself until it notices."""
    app, holder = connect(autocommit=True), connect()
    waited = 0
    for (table,) in app.execute(TABLES).fetchall():
        app.execute("UPDATE message SET size = size + 1, chat_id = 1 + id % 7 WHERE id % 1000 = 3")
        app.execute("DELETE FROM message WHERE size = (SELECT max(size) FROM message)")
        _damage(engine, command)
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.SQL(table)))
        victim = start(COMMANDS[command])
        if victim.until_waiting():
            waited += 1
            victim.kill()
        holder.rollback()
        victim.until_gone()
        _mend(engine, tally, command)
        assert_exact(engine, tally)
    assert waited > 3
    world.check(engine, tally, set())
    tally.backfill(engine)
    world.check_copies(engine, tally)
    world.check(engine, tally, set())


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_one_of_two_killed_under_load(
    engine: Engine, database: URL, connect: Connect, tally: Tally, start: Start, command: str
) -> None:
    """Both race for the same aggregates; whoever is left ends its work, or says that the other one is at it."""
    _damage(engine, command)
    load = Load(partial(connect))
    first, second = start(COMMANDS[command]), start(COMMANDS[command])
    while not first.sessions and first.process.poll() is None:
        load.until_committed(1)
    load.until_committed(random.randint(1, 20))
    first.process.kill()
    assert second.process.wait(DEADLINE_S) in (0, 1)
    committed = load.stop()
    _mend(engine, tally, command)
    world.check(engine, tally, committed)
    tally.backfill(engine)
    world.check_copies(engine, tally)
    world.check(engine, tally, committed)


@pytest.mark.slow
def test_a_redefinition_killed_in_each_step(engine: Engine, connect: Connect, tally: Tally, start: Start) -> None:
    """It goes on when it is run again; readers have the one definition or the other."""
    world.narrow.install(engine)
    world.narrow.backfill(engine)
    app, reader = connect(autocommit=True), connect()
    for step in STEPS:
        reader.execute("SELECT FROM tally.authors")  # it cannot end meanwhile
        victim = start(REDEFINE, stdout=subprocess.PIPE)
        assert victim.process.stdout is not None
        with victim.process.stdout as said:
            assert any(line.startswith(step) for line in said)
            app.execute("UPDATE message SET author = 'moved', size = size + 1 WHERE id % 97 = 5")
            victim.kill()
        reader.rollback()
        app.execute("DELETE FROM message WHERE id = (SELECT max(id) FROM message)")
        world.check_authors(engine)
        world.wide.redefine(engine)
        assert_exact(engine, world.wide)
        world.narrow.redefine(engine)
        assert_exact(engine, world.narrow)
    world.check(engine, tally, set())


@pytest.mark.slow
def test_two_redefine_at_a_time(engine: Engine, connect: Connect, tally: Tally, start: Start) -> None:
    world.narrow.install(engine)
    world.narrow.backfill(engine)
    load = Load(partial(connect))
    both = start(REDEFINE), start(REDEFINE)
    assert 0 in {each.process.wait(DEADLINE_S) for each in both}
    committed = load.stop()
    world.wide.redefine(engine)
    assert_exact(engine, world.wide)
    world.check(engine, tally, committed)
