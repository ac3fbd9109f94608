"""Questions that doctor asks of the server: settings, rights, dead rows and who holds them."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.sql import Identifier

from tallystick.compiler.text import fill, literal
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import named

LASTING_S = 5
"""Seconds after which a transaction is one that lasts."""


@dataclass(frozen=True, slots=True)
class Holder:
    """What has the oldest snapshot of the database: said in words, and the command that ends it."""

    who: str
    remedy: str


def made_by(cursor: Cursor, schema: str) -> str:
    """Version of the package that installed or upgraded a schema."""
    return str(one_row(cursor.execute(fill("SELECT tallystick FROM {t}", t=Identifier(schema, "layout"))))[0])


def is_of_this_release(cursor: Cursor, schema: str, name: str) -> bool:
    """Whether what is kept was folded or built by this major version of PostgreSQL."""
    rows = cursor.execute(
        fill(
            "SELECT FROM {t} WHERE aggregate = {n}"
            " AND major = pg_catalog.current_setting('server_version_num')::integer / 10000",
            t=Identifier(schema, "watermark"), n=literal(name),
        )
    ).fetchall()  # fmt: skip
    return bool(rows)


def replica_settings(cursor: Cursor) -> list[tuple[str, str]]:
    """For whom session_replication_role is set to replica, and the statement that takes it back."""
    return [(whose, reset) for whose, reset in cursor.execute(named("replica_settings"), {}).fetchall()]


def dead_rows(cursor: Cursor, schema: str, least: int) -> list[tuple[str, int]]:
    """Tables of the schema with at least so many dead rows, by PostgreSQL's own statistics, and their number."""
    rows = cursor.execute(named("dead_rows"), {"schema": schema, "least": least}).fetchall()
    return [(table, dead) for table, dead in rows]


def oldest_holder(cursor: Cursor) -> Holder | None:
    """The session, prepared transaction, replication slot or standby with the oldest snapshot, beside our own.

    Transactions of sessions count after `LASTING_S`.
    """
    row = cursor.execute(named("oldest_holder"), {"least_s": LASTING_S}).fetchone()
    return None if row is None else Holder(*row)


def lost_rights(
    cursor: Cursor, schema: str, relations: list[str], functions: list[str], delta: str, mirror: str | None
) -> list[tuple[str, str, str]]:
    """Rights that owners of an aggregate's functions and views lack: role, right, and the statement that grants it.

    Args:
        mirror: the parent that takes copies, if there is one.
    """
    parameters = {
        "schema": schema, "relations": relations, "functions": functions, "delta": delta, "mirror": mirror,
    }  # fmt: skip
    return [
        (role, what, grant) for role, what, grant in cursor.execute(named("lost_rights"), parameters).fetchall()
    ]  # fmt: skip


def readers_lack(cursor: Cursor, schema: str, view: str, reads: list[str]) -> list[tuple[str, str, str]]:
    """What roles lack that were granted the view or one of the functions: role, right, and the granting statement."""
    parameters = {"schema": schema, "view": view, "reads": reads}
    rows = cursor.execute(named("readers_lack"), parameters).fetchall()
    return [(role, what, grant) for role, what, grant in rows]
