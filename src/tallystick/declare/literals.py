"""Values as PostgreSQL reads them in text: it gives a parameter of unknown type that of the function it is for.

A driver would type them by their Python class: an int of five digits as an integer, for a parameter of type smallint.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ARRAY, Text, literal
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.types import Enum, NullType, String, TypeDecorator, TypeEngine

_PLAIN = (str, int, float, Decimal, uuid.UUID)


def argument(value: Any, type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """A value for a parameter of a column's type, and None for NULL."""
    if value is None:
        return literal(None, NullType())
    text = _text(value, type_)
    return literal(value, type_) if text is None else literal(text, NullType())


def arguments(values: Sequence[Any], type_: TypeEngine[Any]) -> ColumnElement[Any]:
    """The same of an array."""
    texts = [None if value is None else _text(value, type_) for value in values]
    if any(text is None and value is not None for text, value in zip(texts, values, strict=True)):
        return literal(list(values), ARRAY(Text() if isinstance(type_, String) else type_))
    return literal("{" + ",".join(map(_element, texts)) + "}", NullType())


def _text(value: Any, type_: TypeEngine[Any]) -> str | None:
    """None where only SQLAlchemy's type knows how."""
    if isinstance(type_, TypeDecorator | Enum):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _PLAIN):
        return str(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    return "\\x" + value.hex() if isinstance(value, bytes) else None


def _element(text: str | None) -> str:
    if text is None:
        return "NULL"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
