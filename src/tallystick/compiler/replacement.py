"""How the next version of an aggregate takes the place of the present one: its tables are renamed, its code made anew.

Afterwards everything is as if the new definition had been installed under the name from the start. The views and
functions that readers use are replaced and not dropped, wherever their columns allow it, so that grants on them, and
views upon them, stay. Nobody else may be in any of the tables, nor in the source.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from psycopg.sql import SQL, Identifier

from tallystick.compiler.grouped import Compiled
from tallystick.compiler.removal import (
    UNDER_VIEWS,
    all_views,
    building_view_names,
    function_names,
    read_names,
    removed_code,
    removed_functions,
    removed_tables,
    removed_views,
    stop_statements,
    table_names,
    view_names,
)
from tallystick.compiler.text import Statement
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Ordering
from tallystick.declare.sqltext import Shape

_TABLES = ("CREATE TABLE", "CREATE UNLOGGED TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX")


@dataclass(frozen=True, slots=True)
class Objects:
    """What one version has in the database: all under its name, by its query, and by its order if it is ordered."""

    name: str
    shape: Shape
    ordering: Ordering | None

    @property
    def tables(self) -> list[str]:
        return table_names(self.name, self.shape)

    @property
    def views(self) -> list[str]:
        """Views that readers use."""
        return view_names(self.name) if self.ordering is None else [self.name]

    @property
    def inner_views(self) -> list[str]:
        """Views that functions alone use."""
        return [view for view in view_names(self.name) if view not in self.views]

    @property
    def building_views(self) -> list[str]:
        """Views that are there while a backfill is due or under way."""
        return building_view_names(self.name)

    @property
    def reads(self) -> list[str]:
        """Functions that readers call."""
        return read_names(self.name, self.shape, self.ordering) if self.ordering is not None else []

    @property
    def functions(self) -> list[str]:
        """All other functions."""
        return function_names(self.name)


def next_name(aggregate: str) -> str:
    """The name that the next version has while it is being built."""
    return internal_name(aggregate, "next")


def replacement_statements(
    schema: str,
    old: Objects,
    new: Objects,
    compiled: Compiled,
    built: Compiled,
    *,
    under_views: Collection[str],
    triggers: Sequence[tuple[str, str]],
    gone: Collection[str],
) -> Iterator[Statement]:
    """Put the new version in the place of the old one, all but their rows in the tables of the installation.

    Args:
        compiled: the new version under the old one's name.
        built: the same, of what has been built of it.
        under_views: functions of the old one that its views need.
        triggers: of both, each with its table.
        gone: the old one's views and functions that readers have and that cannot be replaced: they are dropped first.
    """
    aside = Objects(internal_name(old.name, "old"), old.shape, old.ordering)
    yield from stop_statements(triggers)
    yield from removed_code(new.name, schema, new.reads, all_views(new.name))
    if old.name not in gone:
        yield from removed_views(schema, old.building_views)
        yield from removed_functions(schema, [*gone, *old.functions[: -len(UNDER_VIEWS)]])
        yield from _moved_aside(schema, old, aside, under_views)
    else:
        yield from removed_code(old.name, schema, old.reads, all_views(old.name))
    there = [*aside.inner_views, *aside.tables]
    yield from _renamed("TABLE IF EXISTS", schema, [*old.inner_views, *old.tables], there)
    yield from _renamed("TABLE IF EXISTS", schema, new.tables, table_names(old.name, new.shape))
    yield from _made_anew(compiled, built)
    yield from removed_views(schema, aside.inner_views)
    yield from removed_functions(schema, aside.functions[-len(UNDER_VIEWS) :])
    yield from removed_tables(aside.name, schema, old.shape)
    yield from compiled.triggers


def renaming_statements(
    schema: str,
    was: Objects,
    now: Objects,
    compiled: Compiled,
    *,
    under_views: Collection[str],
    triggers: Sequence[tuple[str, str]],
) -> Iterator[Statement]:
    """Give an aggregate another name, all but its rows in the tables of the installation.

    Args:
        compiled: it under its new name.
        under_views: functions that its views need.
        triggers: each with its table.
    """
    aside = Objects(internal_name(was.name, "old"), was.shape, was.ordering)
    yield from stop_statements(triggers)
    yield from removed_views(schema, was.building_views)
    yield from removed_functions(schema, was.functions[: -len(UNDER_VIEWS)])
    yield from _moved_aside(schema, was, aside, under_views)
    relations = ([*each.views, *each.inner_views, *each.tables] for each in (was, now))
    yield from _renamed("TABLE IF EXISTS", schema, *relations)
    yield from _renamed("FUNCTION", schema, was.reads, now.reads)
    yield from _made_anew(compiled, compiled)
    yield from removed_functions(schema, aside.functions[-len(UNDER_VIEWS) :])
    yield from compiled.triggers


def _moved_aside(schema: str, old: Objects, aside: Objects, under_views: Collection[str]) -> Iterator[Statement]:
    """Functions that views need as long as these have not been replaced."""
    there = [(name, to) for name, to in zip(old.functions, aside.functions, strict=True) if name in under_views]
    yield from _renamed("FUNCTION", schema, [name for name, _ in there], [to for _, to in there])


def _made_anew(compiled: Compiled, built: Compiled) -> Iterator[Statement]:
    """Everything but the tables of what is built."""
    tables = [statement for statement in built.objects if statement.text().startswith(_TABLES)]
    for statement in compiled.objects:
        if statement not in tables:
            yield statement.replacing()


def _renamed(
    what: Literal["TABLE IF EXISTS", "FUNCTION"], schema: str, names: Sequence[str], to: Sequence[str]
) -> Iterator[Statement]:
    """A view is renamed as a table is."""
    for name, other in zip(names, to, strict=True):
        sql = "ALTER {what} {name} RENAME TO {to}"
        parts = {"what": SQL(what), "name": Identifier(schema, name), "to": Identifier(other)}
        yield Statement("takes another name", SQL(sql).format(**parts))
