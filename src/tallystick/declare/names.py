"""Names of aggregates, and of the objects in the database that belong to them."""

from __future__ import annotations

import hashlib

from tallystick.errors import DeclarationError, UsageError

LIMIT_BYTES = 63
"""PostgreSQL cuts longer identifiers, silently."""

_OWN_TABLES = frozenset(
    {
        *("aggregate", "reset", "layout", "epoch", "watermark", "partition", "event", "worker", "schedule", "audit"),
        *("backlog", "counter", "counter_shard", "counter_set"),
    }
)


def checked_name(name: str) -> str:
    """The name, if an aggregate may have it.

    Raises:
        DeclarationError: empty, longer than 63 bytes, with two underscores in a row, or taken by the installation.
    """
    size = len(name.encode())
    if not name or "\0" in name:
        raise DeclarationError("An aggregate needs a name.", hint="Pass a word such as messages_by_chat.")
    if size > LIMIT_BYTES:
        raise DeclarationError(
            f'aggregate "{name}": its name has {size} bytes, PostgreSQL takes {LIMIT_BYTES}.', hint="Shorten it."
        )
    if "__" in name:
        raise DeclarationError(
            f'aggregate "{name}": two underscores in a row are kept for the names of its own objects.',
            hint="Use one underscore.",
        )
    if name in _OWN_TABLES:
        raise DeclarationError(
            f'aggregate "{name}": the installation has a table of that name.', hint="Choose another name."
        )
    return name


def checked_schema(schema: str) -> str:
    """The schema, if PostgreSQL takes it.

    Raises:
        UsageError: empty, longer than 63 bytes, or of PostgreSQL's own.
    """
    if not schema or "\0" in schema or len(schema.encode()) > LIMIT_BYTES or schema.startswith("pg_"):
        raise UsageError(
            f"schema {schema!r}: expected a name of 1 to {LIMIT_BYTES} bytes that does not start with pg_.",
            hint="Use the default, tally.",
        )
    return schema


def trigger_name(schema: str, aggregate: str, event: str) -> str:
    """A trigger stands on the user's table, beside those of other installations."""
    return internal_name(f"{schema}_{aggregate}", event)


def fold_lock_key(schema: str, aggregate: str) -> str:
    """What the advisory lock is taken on that lets one session at a time write an aggregate's state."""
    return f"tallystick fold {schema}.{aggregate}"


def read_name(aggregate: str, read: str) -> str:
    """The SQL function of a read: `<aggregate>_<read>`, with a hash where it would pass PostgreSQL's 63 bytes."""
    return _fitted(f"{aggregate}_{read}")


def internal_name(aggregate: str, suffix: str) -> str:
    """`<aggregate>__<suffix>`, cut and marked with a hash where it would pass PostgreSQL's 63 bytes."""
    return _fitted(f"{aggregate}__{suffix}")


def _fitted(name: str) -> str:
    if len(name.encode()) <= LIMIT_BYTES:
        return name
    tail = f"__{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name.encode()[: LIMIT_BYTES - len(tail)].decode(errors="ignore") + tail
