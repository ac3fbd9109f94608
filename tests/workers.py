"""Workers as processes of their own, whose log is read as it is written."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

from sqlalchemy import URL

from tests.servers import Connection
from tests.stepping import BLOCKED

MAIN = "from tallystick.cli import main; raise SystemExit(main())"
PATIENCE_S = 20.0


def until(is_so: Callable[[], object], what: str = "") -> None:
    """Ask again and again, and fail if it does not become so."""
    deadline = monotonic() + PATIENCE_S
    while not is_so():
        assert monotonic() < deadline, f"in vain: {what or is_so}"
        sleep(0.02)


def waiting(watcher: Connection) -> list[int]:
    """Backends of workers that wait for somebody's lock."""
    found = watcher.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'tally worker'")
    return [pid for (pid,) in found.fetchall() if watcher.execute(BLOCKED, [pid]).fetchone() == (True,)]


class WorkerProcess:
    """`tally worker` with options; `log` holds its records so far."""

    def __init__(self, url: URL, *options: str) -> None:
        dsn = url.render_as_string(hide_password=False)
        # A directory without a pyproject.toml that names an application.
        self.popen = subprocess.Popen(
            [sys.executable, "-c", MAIN, "worker", "--dsn", dsn, "--log-format", "json", "--verbose", *options],
            stderr=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip
        self.log: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def said(self, message: str, **fields: object) -> bool:
        return any(each["message"] == message and fields.items() <= each.items() for each in tuple(self.log))

    def until_said(self, message: str, **fields: object) -> None:
        until(lambda: self.said(message, **fields), f"{message} {fields} in {self.log[-5:]} {self.lines[-5:]}")

    def ask_to_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        os.kill(self.popen.pid, number)

    def stop(self) -> float:
        """Ask it to stop by SIGTERM; after how many seconds it did, with exit code 0."""
        started = monotonic()
        self.ask_to_stop()
        assert self.popen.wait(PATIENCE_S) == 0
        return monotonic() - started

    def kill(self) -> None:
        """End it as `kill -9` does; nothing happens to one that has ended."""
        self.popen.kill()
        self.popen.wait()
        self._reader.join()
        assert self.popen.stderr is not None
        self.popen.stderr.close()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            if line.startswith("{"):
                self.log.append(json.loads(line))
            else:
                self.lines.append(line)


@contextmanager
def working(url: URL, *options: str) -> Iterator[WorkerProcess]:
    """A worker that has started, and has ended afterwards."""
    worker = WorkerProcess(url, *options)
    try:
        worker.until_said("started")
        yield worker
    finally:
        worker.kill()
