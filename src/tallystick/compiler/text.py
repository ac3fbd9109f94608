"""The few composables that all generated SQL is built from; names and values never meet a format string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg.sql import SQL, Composable, Composed, Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """One SQL statement and, in a few words, what it is for."""

    purpose: str
    sql: Composed

    def text(self) -> str:
        """The statement as PostgreSQL receives it."""
        return self.sql.as_string(None)

    @property
    def creates(self) -> Composable | None:
        """The name of the view or function that it creates."""
        first, *rest = self.sql
        return rest[0] if first in (SQL("CREATE VIEW "), SQL("CREATE FUNCTION ")) else None

    def replacing(self) -> Statement:
        """The same where there may be a view of such columns, or a function of such parameters, already."""
        if self.creates is None:
            return self
        first, *rest = self.sql
        create = canonical(first.as_string(None).replace("CREATE", "CREATE OR REPLACE", 1))
        return Statement(self.purpose, Composed([create, *rest]))


def canonical(text: str) -> SQL:
    """Take over text that PostgreSQL itself printed (`pg_get_viewdef`, `format_type`), and nothing else."""
    return SQL(text)


def fill(template: LiteralString, **parts: Composable) -> Composed:
    """Fill `{name}` places of a template with composables."""
    return SQL(template).format(**parts)


def comma(parts: Iterable[Composable]) -> Composed:
    return SQL(", ").join(parts)


def conjunction(conditions: Iterable[Composable]) -> Composed:
    """`a AND b`, or `true` for none."""
    found = list(conditions)
    return SQL(" AND ").join(found) if found else Composed([SQL("true")])


def column(letter: str, index: int) -> SQL:
    """The positional name of an internal column: `k1`, `x2`."""
    return canonical(f"{letter}{index}")


def filtered(call: Composable, *conditions: Composable | None) -> Composed:
    """An aggregate call over the rows that meet all conditions; None is no condition."""
    found = [condition for condition in conditions if condition is not None]
    if not found:
        return Composed([call])
    return fill("{call} FILTER (WHERE {conditions})", call=call, conditions=conjunction(found))


def dollar_quoted(body: Composed) -> Composed:
    """A function body as a string constant that stays readable."""
    text, tag = body.as_string(None), "tally"
    while f"${tag}$" in text:
        tag += "_"
    return Composed([canonical(f"${tag}$"), body, canonical(f"${tag}$")])


def literal(value: str | int | None) -> Literal:
    return Literal(value)


def text_array(values: Sequence[str | None] | None) -> Composed:
    """An array of text, or NULL."""
    if values is None:
        return Composed([SQL("NULL::text[]")])
    return fill("ARRAY[{values}]::text[]", values=comma(literal(value) for value in values))


NO_SQL = SQL("")
"""Nothing, where a template has a place for something."""
SETTINGS = SQL("SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET row_security = off")
"""Of functions that maintain: names resolve in pg_catalog only, floats have all their digits, all rows are seen."""


def private(functions: Iterable[Composable]) -> Statement:
    """Everyone may execute a new function until this takes the right back."""
    return Statement("for the owner alone", fill("REVOKE ALL ON FUNCTION {f} FROM PUBLIC", f=comma(functions)))
