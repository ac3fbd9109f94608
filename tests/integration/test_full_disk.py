"""A full tablespace: a limit of PostgreSQL's own. A write, a fold or a backfill fails whole, and all stays exact."""

import os
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Engine

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.servers import Server

TABLE = """
CREATE TABLE message (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, chat integer, body text);
INSERT INTO message (chat, body) SELECT i % 5, 'a' FROM generate_series(1, 50) AS i;
"""


@pytest.fixture
def small_disk(server: Server, tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB, which only root can mount."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no right to mount a small file system: {mounted.stderr.decode().strip()}")
    folder = tmp_path / "space"
    folder.mkdir()
    account = server.cluster.account
    os.chown(folder, account.pw_uid, account.pw_gid)
    for parent in tmp_path.parents[:3]:  # pytest makes them for their owner alone
        parent.chmod(0o755)
    yield folder
    subprocess.run(["umount", tmp_path], check=True)


def test_a_full_tablespace_for_deltas(small_disk: Path, engine: Engine, connect: Connect) -> None:
    app = connect(autocommit=True)
    app.execute(TABLE)
    tally = Tally()
    tally.grouped("by_body", "SELECT body, count(*) AS messages, max(id) AS last FROM message GROUP BY body")
    tally.install(engine)
    tally.backfill(engine)
    space = sql.Identifier(f"small {app.info.dbname}")
    app.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, str(small_disk)))
    app.execute(sql.SQL("ALTER TABLE tally.by_body__delta SET TABLESPACE {}").format(space))
    app.execute("ALTER TABLE message ADD COLUMN note text")
    many = sql.SQL(
        "INSERT INTO message (chat, body) SELECT 1, repeat('b', 500) || i FROM generate_series(1, 9000) AS i"
    )
    with pytest.raises(psycopg.errors.DiskFull):
        app.execute(
            "INSERT INTO message (chat, body) SELECT 1, repeat('b', 500) || i FROM generate_series(1, 9000) AS i"
        )
    assert app.execute("SELECT count(*) FROM message").fetchone() == (50,)
    assert_exact(engine, tally)
    app.execute("UPDATE message SET note = 'of no concern'")
    app.execute("ALTER TABLE tally.by_body__delta SET TABLESPACE pg_default")
    app.execute(sql.SQL("DROP TABLESPACE {}").format(space))
    app.execute(many)
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


@pytest.mark.parametrize("operation", [Tally.fold, partial(Tally.backfill, force=True)], ids=["fold", "backfill"])
def test_a_full_tablespace_for_the_state(
    small_disk: Path, engine: Engine, connect: Connect, operation: Callable[[Tally, Engine], object]
) -> None:
    """Writers do not notice; readers find in the deltas what could not be folded."""
    app = connect(autocommit=True)
    app.execute(TABLE)
    tally = Tally()
    tally.grouped("by_body", "SELECT body, count(*) AS messages, max(id) AS last FROM message GROUP BY body")
    tally.install(engine)
    tally.backfill(engine)
    space = sql.Identifier(f"small {app.info.dbname}")
    app.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(space, str(small_disk)))
    app.execute(sql.SQL("ALTER TABLE tally.by_body__state SET TABLESPACE {}").format(space))
    app.execute("INSERT INTO message (chat, body) SELECT 1, repeat('b', 500) || i FROM generate_series(1, 9000) AS i")
    with pytest.raises(psycopg.errors.DiskFull):
        operation(tally, engine)
    assert_exact(engine, tally)
    app.execute("DELETE FROM message WHERE id % 3 = 0")
    assert_exact(engine, tally)
    app.execute("ALTER TABLE tally.by_body__state SET TABLESPACE pg_default")
    app.execute(sql.SQL("DROP TABLESPACE {}").format(space))
    operation(tally, engine)
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
