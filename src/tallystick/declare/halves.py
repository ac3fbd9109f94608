"""Which half of an aggregate answers, as an argument of its SQL functions that `direct_of` can turn.

SQLAlchemy caches a statement's text only if each class in it says which attributes make a difference: here none do.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement


class ServingHalf(ColumnElement[bool]):
    """The half that is serving answers: kept, or direct after a rollback."""

    inherit_cache = True
    _traverse_internals = []  # noqa: RUF012 (SQLAlchemy's own classes have lists)
    type = Boolean()


class DirectHalf(ColumnElement[bool]):
    """The source answers."""

    inherit_cache = True
    _traverse_internals = []  # noqa: RUF012 (SQLAlchemy's own classes have lists)
    type = Boolean()


@compiles(ServingHalf)
def _serving(element: ServingHalf, compiler: Any, **_: Any) -> str:  # noqa: ARG001 (SQLAlchemy passes them)
    return "false"


@compiles(DirectHalf)
def _direct(element: DirectHalf, compiler: Any, **_: Any) -> str:  # noqa: ARG001 (SQLAlchemy passes them)
    return "true"
