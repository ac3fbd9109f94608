"""Fixed SQL from the `.sql` files beside this module."""

from __future__ import annotations

import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files

from psycopg.sql import SQL, Composed, Identifier, Literal

PACKAGE_VERSION = version("tallystick")


@cache
def named(name: str) -> SQL:
    """A query of `catalog.sql` or `health.sql`, with psycopg's `%(name)s` parameters."""
    sections: dict[str, str] = {}
    for file in ("catalog.sql", "health.sql"):
        text = files("tallystick.store").joinpath("sql", file).read_text(encoding="utf-8")
        sections |= re.findall(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return SQL(sections[name])


def schema_script(schema: str) -> Composed:
    """What every installation needs once, for a schema of this name."""
    return _script(schema, "schema.sql", "functions.sql", "counter.sql", "counter_functions.sql")


def own_functions(schema: str) -> Composed:
    """The functions without state, which replace those of another layout while views use them."""
    return _script(schema, "functions.sql")


def own_tables(schema: str) -> Composed:
    """The tables of aggregates, without those of counters."""
    return _script(schema, "schema.sql")


def counter_tables(schema: str) -> Composed:
    """The tables of counters."""
    return _script(schema, "counter.sql")


def counter_functions(schema: str) -> Composed:
    """The functions of counters, which replace those of another text."""
    return _script(schema, "counter_functions.sql")


def _script(schema: str, *names: str) -> Composed:
    folder = files("tallystick.store").joinpath("sql")
    parts = (folder.joinpath(name).read_text(encoding="utf-8") for name in names)
    return SQL("\n".join(parts)).format(
        schema=Identifier(schema),
        schema_name=Literal(Identifier(schema).as_string(None)),
        package=Literal(PACKAGE_VERSION),
        epoch_name=Literal(Identifier(schema, "epoch").as_string(None)),
    )
