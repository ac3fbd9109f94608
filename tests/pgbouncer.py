"""A PgBouncer in transaction mode before a server: each transaction gets another backend than the one before."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from sqlalchemy import URL

from tests.servers import Server

DEADLINE_S = 20.0
BACKENDS = 3
# By round robin, nobody gets the backend of the transaction before: what is left in a session shows.
CONFIGURATION = """
[databases]
* = host={socket} port=5432
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
server_round_robin = 1
min_pool_size = {backends}
default_pool_size = {backends}
max_client_conn = 200
"""


@contextmanager
def pgbouncer(server: Server, folder: Path, users: Sequence[str] = ("postgres",)) -> Iterator[URL]:
    """Run one; yields the URL of the database `postgres` through it. Skips where it is not installed."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed (Debian: apt install pgbouncer)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "users").write_text("".join(f'"{user}" ""\n' for user in users))
    settings = {"socket": server.cluster.data, "port": port, "folder": folder, "backends": BACKENDS}
    (folder / "pgbouncer.ini").write_text(CONFIGURATION.format(**settings))
    for path in (folder, *folder.parents[:3]):  # pytest makes them for their owner alone
        path.chmod(0o755)
    account = server.cluster.account if os.geteuid() == 0 else None  # it refuses to run as root
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            [program, folder / "pgbouncer.ini"], stdout=log, stderr=log, user=account and account.pw_uid
        )
        try:
            url = URL.create("postgresql+psycopg", "postgres", host="127.0.0.1", port=port, database="postgres")
            _until_it_answers(url, folder / "log")
            yield url
        finally:
            running.terminate()
            running.wait(DEADLINE_S)


def _until_it_answers(url: URL, log: Path) -> None:
    deadline = monotonic() + DEADLINE_S
    while True:
        try:
            psycopg.connect(url.set(drivername="postgresql").render_as_string()).close()
        except psycopg.OperationalError:
            assert monotonic() < deadline, log.read_text()
        else:
            return
