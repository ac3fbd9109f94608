"""What a command works on: a database, and an application's registry or what is installed in a schema."""

from __future__ import annotations

import importlib
import shlex
import sys
import tomllib
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Annotated

import psycopg
import typer
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError

from tallystick import embedded
from tallystick.cli.hints import repeated
from tallystick.cli.output import Output
from tallystick.errors import NotInstalled, TallyError, UsageError
from tallystick.maintain.tally import Tally
from tallystick.store import aggregates, counters
from tallystick.store.aggregates import Installed
from tallystick.store.connection import transaction
from tallystick.store.counters import InstalledCounter

DSN_VARIABLE = "TALLY_DSN"
SCHEMA = "tally"
DRIVER = "postgresql+psycopg"

Dsn = Annotated[
    str | None,
    typer.Option(
        "--dsn", envvar=DSN_VARIABLE, show_envvar=True, metavar="URL",
        help="Database, as postgresql://user@host/database. Default: the embedded server.",
    ),
]  # fmt: skip
App = Annotated[
    str | None,
    typer.Option(
        "--app", metavar="MODULE:REGISTRY",
        # Without the backslash, Rich takes it for markup.
        help="Where the aggregates are declared. Default: app under \\[tool.tallystick] in pyproject.toml.",
    ),
]  # fmt: skip
Schema = Annotated[
    str | None,
    typer.Option(
        "--schema", metavar="NAME",
        help=f"Work on what is installed in this schema, without the declarations. Default: {SCHEMA}.",
    ),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Aggregates. Default: all.")]


@dataclass(frozen=True)
class Target:
    """A database and, if the application is known, its registry.

    `options` is what the next command must repeat to mean the same, with a leading blank.
    """

    engine: Engine
    schema: str
    tally: Tally | None
    options: str

    def installed(self) -> list[Installed]:
        with transaction(self.engine, read_only=True) as cursor:
            return aggregates.every(cursor, self.schema)

    def installed_counters(self) -> dict[str, InstalledCounter]:
        with transaction(self.engine, read_only=True) as cursor:
            return {found.name: found for found in counters.every(cursor, self.schema)}

    def comparable_names(self, names: Sequence[str] | None) -> list[str]:
        """The same, without counters that have no direct query, unless these are asked for by name."""
        known = self.installed_counters()
        chosen = self.installed_names(names)
        return [name for name in chosen if names or name not in known or known[name].definition is not None]

    def installed_names(self, names: Sequence[str] | None, *, rest_is_gone: bool = False) -> list[str]:
        """The aggregates asked for, else all declared, else all installed.

        Args:
            rest_is_gone: what is declared and not asked for by name need not be installed.
        Raises:
            NotInstalled: one of them, or anything at all, is not installed.
        """
        installed = [*(found.name for found in self.installed()), *self.installed_counters()]
        declared = self._declared(self.tally) if self.tally is not None else installed
        wanted = list(dict.fromkeys(names)) if names else declared
        if rest_is_gone and not names:
            wanted = [name for name in wanted if name in installed]
        if not wanted:
            raise NotInstalled(
                f'nothing is installed in schema "{self.schema}" of {shown_url(self.engine.url)}.',
                hint="Declare aggregates (tally init), then run: tally install",
            )
        missing = [name for name in wanted if name not in installed]
        if missing:
            is_declared = all(name in declared for name in missing)
            raise NotInstalled(
                f'not installed in schema "{self.schema}": {", ".join(missing)}'
                f" (installed: {', '.join(installed) or 'none'}).",
                hint=f"Run: tally install {' '.join(missing)}" if is_declared else "Check the name.",
            )
        return wanted

    def kept_names(self) -> list[str]:
        """Whatever is installed and backfilled, counters among it."""
        return [*(found.name for found in self.installed() if found.is_complete), *self.installed_counters()]

    def pasteable(self, text: str) -> str:
        """A text whose commands do the same here when they are pasted."""
        return repeated(text, self.options)

    def registry(self) -> Tally:
        """The application's registry.

        Raises:
            UsageError: it was not named, or declares nothing.
        """
        if self.tally is None:
            raise UsageError(
                "which aggregates? The command needs your declarations.",
                hint="Add --app module:registry (for example --app tallies:tally, written by tally init),"
                ' or put app = "tallies:tally" under [tool.tallystick] in pyproject.toml.',
            )
        if not self._declared(self.tally):
            raise UsageError(
                "the registry declares no aggregates.", hint="Declare one: tally.grouped(name, select(…).group_by(…))."
            )
        return self.tally

    def declared_names(self, names: Sequence[str] | None) -> list[str]:
        """The aggregates asked for, else all declared.

        Raises:
            UsageError: one of them is not declared.
        """
        tally = self.registry()
        if not names:
            return self._declared(tally)
        return [tally.declared(name).name for name in dict.fromkeys(names)]

    @staticmethod
    def _declared(tally: Tally) -> list[str]:
        return [*(aggregate.name for aggregate in tally.kept()), *tally.counters]


@contextmanager
def opened(dsn: str | None, app: str | None, schema: str | None, output: Output) -> Iterator[Target]:
    """Find the registry, then the database; nothing is connected yet, and the embedded server runs.

    Raises:
        UsageError: the registry cannot be had, the DSN cannot be read, or --schema contradicts the registry.
        ServerUnavailable: the embedded server does not start.
    """
    # An explicit --schema works on the database alone, so a broken application cannot be in the way of an uninstall.
    tally = registry_of(app) if app is not None or schema is None else None
    if tally is not None and schema is not None and schema != tally.schema:
        raise UsageError(
            f'--schema "{schema}" contradicts --app {app}, whose registry has schema "{tally.schema}".',
            hint="Leave one of them out.",
        )
    # For `tally events`, and for whoever looks at pg_stat_activity; a name in the DSN prevails.
    engine = create_engine(url_of(dsn, output), connect_args={"fallback_application_name": "tally"})
    given = ("--app", app) if app is not None else ("--schema", schema) if schema is not None else ()
    options = f" {shlex.join(given)}" if given else ""
    target = Target(engine, schema or (tally.schema if tally is not None else SCHEMA), tally, options)
    try:
        yield target
    except TallyError as error:
        error.hint = target.pasteable(error.hint) if error.hint is not None else None
        raise
    finally:
        engine.dispose()


def url_of(dsn: str | None, output: Output) -> URL:
    """The database that a DSN names (a URL, or libpq's key=value form), else the embedded server's, which is started.

    Raises:
        UsageError: it is no DSN of PostgreSQL.
        ServerUnavailable: the embedded server does not start.
    """
    if not dsn:
        with output.steps() as steps:
            steps.begin("starting the embedded PostgreSQL")
            return make_url(embedded.start())
    # The text is not repeated in messages: it may hold a password.
    hint = "Write it as postgresql://user@host:5432/database."
    try:
        if "://" not in dsn:
            given = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
            host, user, password = given.pop("host", None), given.pop("user", None), given.pop("password", None)
            port, name = given.pop("port", None), given.pop("dbname", None)
            query = given | ({"host": host} if host else {}) | ({"port": port} if port else {})
            return URL.create(DRIVER, username=user, password=password, database=name, query=query)
        url = make_url(dsn)
    except (ArgumentError, ValueError, psycopg.ProgrammingError):
        raise UsageError("the DSN cannot be read.", hint=hint) from None
    kind = url.drivername.partition("+")[0]
    if kind not in ("postgresql", "postgres"):
        raise UsageError(f"the DSN names a database of {kind}, tallystick works with PostgreSQL.", hint=hint)
    return url.set(drivername=DRIVER)


def shown_url(url: URL) -> str:
    """A URL as it may be printed: without the password, as psql takes it, a socket's directory left readable."""
    return url.set(drivername="postgresql").render_as_string(hide_password=True).replace("%2F", "/")


def registry_of(app: str | None) -> Tally | None:
    """The registry that --app names, else the one in pyproject.toml, else None. The current directory is importable.

    Raises:
        UsageError: what is named cannot be imported, or is not a registry.
    """
    where = "--app" if app is not None else "pyproject.toml, [tool.tallystick] app:"
    app = app if app is not None else _in_pyproject()
    if app is None:
        return None
    module_name, colon, attribute = app.partition(":")
    if not (colon and module_name and attribute) or "/" in module_name or module_name.endswith(".py"):
        suggested = Path(module_name).stem or "tallies"
        raise UsageError(
            f'{where} "{app}" is not of the form module:registry.',
            hint=f"Write it like {suggested}:{attribute or 'tally'}.",
        )
    module = _imported(where, app, module_name)
    try:
        found = attrgetter(attribute)(module)
    except AttributeError:
        known = [name for name, value in vars(module).items() if isinstance(value, Tally)]
        raise UsageError(
            f'{where} "{app}": module {module_name} has no "{attribute}".',
            hint=f"Did you mean {module_name}:{known[0]}?" if known else f"Declare it there: {attribute} = Tally()",
        ) from None
    if not isinstance(found, Tally):
        raise UsageError(
            f'{where} "{app}": expected a Tally, got {type(found).__name__}.',
            hint="Name the registry, the object that tally = Tally() makes.",
        )
    return found


def _in_pyproject() -> str | None:
    path = Path("pyproject.toml")
    if not path.is_file():
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
        app = settings.get("tool", {}).get("tallystick", {}).get("app")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise UsageError(f"pyproject.toml cannot be read: {error}.", hint="Mend it, or give --app.") from error
    if app is not None and not isinstance(app, str):
        raise UsageError(
            "pyproject.toml, [tool.tallystick] app: expected a string.", hint='Write it like app = "tallies:tally".'
        )
    return app


def _imported(where: str, app: str, name: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        with redirect_stdout(sys.stderr):  # what the module prints is no result of ours
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f'{where} "{app}": there is no module "{error.name}" in {here} or installed.',
                hint="Run it in the directory of your application, check the name, or write a starter: tally init",
            ) from None
        raise _not_importable(where, app, name, error) from error
    except (Exception, SystemExit) as error:
        raise _not_importable(where, app, name, error) from error


def _not_importable(where: str, app: str, name: str, error: BaseException) -> UsageError:
    if isinstance(error, TallyError):
        return UsageError(f'{where} "{app}": {error.message}', hint=error.hint)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    at = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    return UsageError(
        f'{where} "{app}": importing {name} fails: {type(error).__name__}: {error}{at}.', hint="Mend the module first."
    )
