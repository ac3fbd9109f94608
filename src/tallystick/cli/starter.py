"""init: a module to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from tallystick.cli.output import Output
from tallystick.cli.target import App, Dsn, Json
from tallystick.errors import UsageError

DEFAULT = "tallies:tally"

File = Annotated[Path | None, typer.Argument(metavar="FILE", help="The module to write. Default: tallies.py.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


def add_to(app: typer.Typer) -> None:
    app.command()(init)


def init(
    file: File = None,
    force: Force = False,
    dsn: Dsn = None,  # noqa: ARG001  # every command takes it; nothing is connected here
    app: App = None,
    as_json: Json = False,
) -> None:
    """Write a module with a registry and two aggregates to start from. No database is needed.

    --app module:registry names file and registry at once.
    """
    output = Output(as_json=as_json)
    path, module, registry = _place(file, app)
    if path.exists() and not force:
        raise UsageError(f"{path} exists already.", hint="Overwrite it with --force, or name another file.")
    text = files("tallystick.cli").joinpath("starter.txt").read_text(encoding="utf-8")
    try:
        path.write_text(Template(text).substitute(module=module, registry=registry, file=path), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.", hint="Name another file.") from error
    reference = f"{module}:{registry}"
    next_ = [f"tally {command} --app {reference}" for command in ("plan", "install", "backfill", "verify", "status")]
    output.json({"file": str(path), "app": reference, "next": next_})
    if as_json:
        return
    output.say(f"Wrote {path}. Put your own tables into it, or make its example table: python {path}")
    output.say("Next:")
    for command in next_:
        output.say(f"  {command}")
    output.say("To leave --app out, put this into pyproject.toml:")
    output.say(f'  [tool.tallystick]\n  app = "{reference}"')


def _place(file: Path | None, app: str | None) -> tuple[Path, str, str]:
    """The file, its module's name, the registry's name.

    Raises:
        UsageError: they contradict each other, or Python could not import such a module.
    """
    if file is not None and app is not None:
        raise UsageError("both FILE and --app name the module to write.", hint="Leave one of them out.")
    module, _, registry = (app or DEFAULT).partition(":")
    if file is not None:
        if file.suffix != ".py" or file.is_absolute() or ".." in file.parts:
            raise UsageError(
                f"{file} is not a .py file below the current directory.", hint="Name one, such as tallies.py."
            )
        module = ".".join(file.with_suffix("").parts)
    parts = module.split(".")
    if not registry.isidentifier() or not all(part.isidentifier() for part in parts):
        raise UsageError(
            f'"{module}:{registry}" cannot be imported: names are made of letters, digits and underscores.',
            hint=f"Take {DEFAULT}, for example.",
        )
    return Path(*parts).with_suffix(".py"), module, registry
