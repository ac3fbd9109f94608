"""The PostgreSQL servers of one test run: the newest version, from the wheel, and the oldest that is at hand.

They listen on a unix socket in a temporary directory, and are stopped and removed at the end. Settings trade
durability for speed: a test's data need not survive a power cut, unless a test asks for DURABLE ones.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from tallystick.embedded import Cluster, own_account, programs

Connection = psycopg.Connection[tuple[Any, ...]]

NEWEST, OLDEST_IN_WHEEL = 18, 16
SYSTEM_VERSIONS = (15, 16, 17)
DURABLE = """
shared_buffers = 64MB
max_connections = 100
max_prepared_transactions = 20
jit = off
"""
SETTINGS = f"""
{DURABLE}
fsync = off
full_page_writes = off
synchronous_commit = off
"""


@dataclass(frozen=True)
class Release:
    """One version of PostgreSQL that can be run here; `programs` is None for the wheel's."""

    version: str  # "15.18"
    programs: Path | None = None

    @property
    def major(self) -> int:
        return int(self.version.partition(".")[0])

    def __str__(self) -> str:
        return f"{self.version} ({'system' if self.programs else 'wheel'})"


@dataclass
class Server:
    """A running server. Databases are named t1, t2, ... in the order of their making."""

    release: Release
    cluster: Cluster
    _numbers: "count[int]" = field(default_factory=lambda: count(1))
    _templates: set[str] = field(default_factory=set)

    def connect(
        self,
        database: str = "postgres",
        *,
        user: str = "postgres",
        autocommit: bool = False,
        options: str = "",
    ) -> Connection:
        return psycopg.connect(
            host=str(self.cluster.data),
            port=5432,
            dbname=database,
            user=user,
            autocommit=autocommit,
            options=options,
        )

    def url(self, database: str) -> URL:
        return make_url(self.cluster.url).set(database=database)

    def template(self, name: str, build: Callable[[Connection], None] | None = None) -> str:
        """Make the template database `name` on first use: empty, then `build` over a connection to it."""
        if name not in self._templates:
            self._make_database(name, "template1")
            if build is not None:
                with self.connect(name) as connection:
                    build(connection)
            self._templates.add(name)
        return name

    def create_database(self, template: str) -> str:
        """Copy a template into a new database and return its name."""
        name = f"t{next(self._numbers)}"
        self._make_database(name, template)
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        self._execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_role(self, name: str) -> None:
        """Make a role that can log in and owns nothing."""
        self._execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))

    def drop_role(self, name: str) -> None:
        """Drop a role; the databases where it owned or was granted something must be gone."""
        self._execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))

    def _make_database(self, name: str, template: str) -> None:
        names = sql.Identifier(name), sql.Identifier(template)
        self._execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*names))

    def _execute(self, statement: sql.Composed) -> None:
        with self.connect(autocommit=True) as connection:
            connection.execute(statement)


class Servers:
    """Starts a server when it is first asked for, and stops all of them at the end."""

    def __init__(self, settings: str = SETTINGS) -> None:
        self._settings = settings
        self._home = Path(tempfile.mkdtemp(prefix="tally-")).resolve()
        self._home.chmod(0o755)  # for root, the servers run as another user
        self._running: dict[Release, Server] = {}

    def get(self, release: Release) -> Server:
        if release not in self._running:
            account = own_account()
            found = release.programs or programs(release.major, account=account, copies=self._home)
            cluster = Cluster(self._home / str(release.major), found, account)
            cluster.create(["--no-sync"])
            with (cluster.data / "postgresql.conf").open("a") as configuration:
                configuration.write(self._settings)
            cluster.ensure()
            self._running[release] = Server(release, cluster)
        return self._running[release]

    def close(self) -> None:
        for server in self._running.values():
            server.cluster.halt()
        shutil.rmtree(self._home)


def releases() -> list[Release]:
    """The versions to test: the wheel's newest, and the oldest found on the system, else in the wheel."""
    oldest = min(_on_the_system(), key=lambda release: release.major, default=_in_the_wheel(OLDEST_IN_WHEEL))
    return [_in_the_wheel(NEWEST), oldest]


def _in_the_wheel(major: int) -> Release:
    myself = pwd.getpwuid(os.geteuid())  # can run the wheel's programs where they are
    return Release(_version(programs(major, account=myself, copies=Path(tempfile.gettempdir()))))


def _on_the_system() -> list[Release]:
    folders = [Path(f"/usr/lib/postgresql/{major}/bin") for major in SYSTEM_VERSIONS]
    if pg_config := shutil.which("pg_config"):
        folders.append(Path(subprocess.check_output([pg_config, "--bindir"], text=True).strip()))
    found = []
    for folder in folders:
        with suppress(OSError):  # a client's pg_config names a folder without a server
            found.append(Release(_version(folder), folder))
    return [release for release in found if release.major in SYSTEM_VERSIONS]


def _version(folder: Path) -> str:
    return subprocess.check_output([folder / "postgres", "--version"], text=True).split()[2]
