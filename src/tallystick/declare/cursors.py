"""Cursors of pages: opaque text that names an aggregate, a namespace and a place in its order.

Inside is a JSON array of the aggregate's name, the namespace's values and the place's, as PostgreSQL writes them, in
the URL-safe alphabet of base64. PostgreSQL makes cursors and takes them apart; here they are checked beforehand.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy.types import Enum, TypeDecorator, TypeEngine

from tallystick.declare.ranges import Order


def refuse_foreign(order: Order, cursor: object, namespace: Sequence[Any]) -> None:
    """Check a cursor as far as Python can tell; what it cannot tell PostgreSQL does.

    Raises:
        UsageError: it is none, or of another aggregate or namespace.
    """
    hint = "Pass the cursor of the last row of the page before, or None for the first page."
    try:
        text = str(cursor)
        name, of, place = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if len(of) != len(order.namespace) or len(place) != len(order.position):
            raise ValueError
    except (ValueError, TypeError, binascii.Error):
        raise order.refuse(f"{cursor!r} is no cursor", hint) from None
    if name != order.aggregate:
        raise order.refuse(f'the cursor is of the aggregate "{name}"', hint)
    for part, value, written in zip(order.namespace, namespace, of, strict=False):
        if _differs(part.type, value, written):
            raise order.refuse(f"the cursor is of the namespace {part.name} = {written}, not {value}", hint)


def _differs(type_: TypeEngine[Any], value: object, written: str) -> bool:
    """Whether a value is surely another than the one that PostgreSQL has written.

    Texts can be equal and spelled differently, by their collation, so they are left to PostgreSQL; so is what a type of
    the application's own makes of a value.
    """
    if isinstance(type_, TypeDecorator | Enum):
        return False
    try:
        if isinstance(value, bool):
            return written != ("true" if value else "false")
        if isinstance(value, int | Decimal):
            return Decimal(written) != value and value == value  # NaN is equal to itself in PostgreSQL
        if isinstance(value, uuid.UUID):
            return uuid.UUID(written) != value
        if isinstance(value, datetime):
            return value.tzinfo is not None and datetime.fromisoformat(written) != value
        if isinstance(value, date):
            return date.fromisoformat(written) != value
        if isinstance(value, time):
            return time.fromisoformat(written) != value
    except (ValueError, TypeError, ArithmeticError):
        return True  # Python has no such value: a moment of the year 0 or infinity, or a cursor that somebody made up
    return False
