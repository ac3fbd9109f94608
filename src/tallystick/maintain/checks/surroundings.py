"""What surrounds an installation: versions, settings of the server and of roles, publications."""

from __future__ import annotations

from collections.abc import Iterator

from tallystick.maintain.checks.finding import Finding
from tallystick.store import catalog, health
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import PACKAGE_VERSION


def of_versions(cursor: Cursor, schema: str) -> Iterator[Finding]:
    """A later version of this package installed it than the one that looks at it now."""
    made_by = health.made_by(cursor, schema)
    if _numbers(made_by) > _numbers(PACKAGE_VERSION):
        what = f"was installed or upgraded by tallystick {made_by}, this is {PACKAGE_VERSION}"
        yield Finding("error", schema, what, f"pip install 'tallystick>={made_by}'")


def of_settings(cursor: Cursor, schema: str, *, has_aggregates: bool) -> Iterator[Finding]:
    """Settings and publications by which reads are slow, or writes and folds do not do what they should."""
    (jit,) = one_row(cursor.execute("SELECT current_setting('jit')::boolean AND pg_jit_available()"))
    if has_aggregates and jit:
        yield Finding(
            "advice", "jit",
            "just-in-time compilation is on: PostgreSQL may spend hundreds of milliseconds compiling the half of a view"
            " that it never runs",
            "ALTER DATABASE … SET jit = off",
        )  # fmt: skip
    for whose, reset in health.replica_settings(cursor):
        yield Finding(
            "advice", "session_replication_role",
            f"is replica for {whose}: its rows are captured one by one, and PostgreSQL checks none of its foreign keys",
            reset,
        )  # fmt: skip
    for publication in catalog.publications_of_changes(cursor, schema):
        yield Finding(
            "error", schema,
            f"publication {publication} takes in our tables, which have no replica identity: folds and backfills fail",
            "CREATE PUBLICATION … FOR TABLES IN SCHEMA … in its place, for the schemas of the application",
        )  # fmt: skip


def _numbers(version: str) -> list[int]:
    """The release of a version, which can be compared: [1, 2, 0] of 1.2.0."""
    return [int(part) for part in version.split(".")[:3] if part.isdigit()]
