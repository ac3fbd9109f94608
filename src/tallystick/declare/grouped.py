"""The declaration of a grouped aggregate."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError
from sqlalchemy.types import TypeEngine

from tallystick.declare.mirror import mirrored
from tallystick.declare.names import checked_name
from tallystick.declare.reads import GroupReads, halves
from tallystick.declare.sqltext import Shape, shape_of
from tallystick.declare.tokens import tokenize
from tallystick.errors import DeclarationError


class Grouped(GroupReads):
    """A `SELECT … GROUP BY` that is kept. Its reads answer from the kept half; `direct` has the same over the source.

    Attributes:
        name: of the aggregate and of its view.
        schema: of the installation.
        definition: the declared query as SQL.
        shape: the declared query taken apart.
        mirror: the parent's columns that take copies of measures, if there are any.
        table: the view that readers use, with the declared columns.
        direct: the same reads over the source.
    """

    def __init__(
        self,
        name: str,
        declared: Select[*tuple[Any, ...]] | str,
        *,
        schema: str,
        mirror: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = checked_name(name)
        self.schema = schema
        self.definition = text_of(name, declared)
        self.shape: Shape = shape_of(name, self.definition)
        self.mirror = mirrored(name, self.shape, mirror) if mirror else None
        types: dict[str, TypeEngine[Any]] = {}
        if not isinstance(declared, str):
            types = {column.name: column.type for column in declared.selected_columns if hasattr(column, "name")}
        kept, self.direct = halves(name, schema, self.shape, types)
        super().__init__(name, self.shape, table=kept.table, parts=kept._parts)

    @property
    def fingerprint(self) -> str:
        """What tells two declarations apart: the SHA-256 of query and mirror, in hexadecimal."""
        tokens = " ".join(token.text for token in tokenize(self.definition))
        if self.mirror is not None:
            tokens += f" {self.mirror.table} {sorted(self.mirror.columns.items())}"
        return hashlib.sha256(tokens.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Grouped {self.schema}.{self.name}: {self.definition!r}>"


def text_of(name: str, declared: Select[*tuple[Any, ...]] | str) -> str:
    """The declared query as SQL, its literals written out.

    Raises:
        DeclarationError: it is no query, or a value of it has no literal.
    """
    if isinstance(declared, str):
        return declared.strip().rstrip(";").rstrip()
    if not isinstance(declared, Select):
        raise DeclarationError(
            f'aggregate "{name}": expected a Select or a SQL string, got {type(declared).__name__}.',
            hint="Pass sqlalchemy.select(…).group_by(…) or the query's text.",
        )
    # The paramstyle decides only whether % is doubled; literals are written out.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    try:
        return str(declared.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
    except CompileError as error:
        raise DeclarationError(
            f'aggregate "{name}": {error}', hint="Use literal values, or declare the aggregate as a SQL string."
        ) from error
