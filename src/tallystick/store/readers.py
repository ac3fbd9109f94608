"""What readers have of an aggregate's views and functions: columns, rights, and objects of their own upon them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier

from tallystick.compiler.replacement import Objects
from tallystick.compiler.text import canonical, fill
from tallystick.store.catalog import columns_of, missing, qualified
from tallystick.store.connection import Cursor, Row
from tallystick.store.queries import named


@dataclass(frozen=True, slots=True)
class Grant:
    """A right that a role was given. `kind` is TABLE or FUNCTION, `role` None for PUBLIC."""

    kind: str
    name: str
    column: str | None
    right: str
    role: str | None
    may_pass_on: bool

    def statement(self, schema: str) -> Composed:
        return fill(
            "GRANT {right}{column} ON {kind} {name} TO {role}{option}",
            right=canonical(self.right), kind=canonical(self.kind), name=Identifier(schema, self.name),
            column=fill(" ({c})", c=Identifier(self.column)) if self.column is not None else SQL(""),
            role=Identifier(self.role) if self.role is not None else SQL("PUBLIC"),
            option=SQL(" WITH GRANT OPTION") if self.may_pass_on else SQL(""),
        )  # fmt: skip


def grants(cursor: Cursor, schema: str, views: Sequence[str], functions: Sequence[str]) -> list[Grant]:
    """What roles beside the owner may do with views and functions."""
    parameters = {"schema": schema, "views": list(views), "functions": list(functions)}
    return [Grant(*row) for row in cursor.execute(named("grants"), parameters).fetchall()]


def restore(cursor: Cursor, schema: str, granted: Sequence[Grant]) -> None:
    """Give back the rights that went with objects that were made anew, where these have the columns still."""
    names = list({grant.name for grant in granted})
    there = set(grants(cursor, schema, names, names))
    for grant in granted:
        if grant not in there and _exists(cursor, schema, grant):
            cursor.execute(grant.statement(schema))


def _exists(cursor: Cursor, schema: str, grant: Grant) -> bool:
    if grant.kind == "FUNCTION":
        return not missing(cursor, schema, [], [grant.name])
    columns = columns_of(cursor, qualified(schema, grant.name))
    return bool(columns) and grant.column in (None, *columns)


def dependents(cursor: Cursor, schema: str, needed: Sequence[str], own: Sequence[str] | None = None) -> list[str]:
    """Whatever PostgreSQL would drop together with one of the needed objects, as it describes it.

    Args:
        own: objects that are not told; None for all of the schema.
    """
    parameters = {"schema": schema, "needed": list(needed), "own": list(own) if own is not None else None}
    return [what for (what,) in cursor.execute(named("dependents"), parameters).fetchall()]


def not_replaceable(cursor: Cursor, schema: str, old: Objects, new: Objects) -> list[str]:
    """The readers' views and functions that the new version's cannot replace, since they lack columns or parameters.

    What follows what is there is in nobody's way.
    """
    for was, now in zip(old.views, new.views, strict=True):
        views = {"was": qualified(schema, was), "now": qualified(schema, now)}
        if cursor.execute(named("missing_columns"), views).fetchall():
            return [*old.views, *old.reads]  # functions give rows of the view
    by_name = zip(old.reads, Objects(new.name, old.shape, old.ordering).reads, strict=True)
    return [was for was, now in by_name if _signature(cursor, schema, was) != _signature(cursor, schema, now)]


def _signature(cursor: Cursor, schema: str, function: str) -> list[Row]:
    return cursor.execute(named("signature"), {"schema": schema, "name": function}).fetchall()
