"""The table of installed aggregates, and the installation's own schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg.sql import SQL, Composed, Identifier

from tallystick.compiler.removal import OWN_ROWS
from tallystick.compiler.text import Statement, comma, fill, literal
from tallystick.declare.changes import Change, compare
from tallystick.declare.names import internal_name
from tallystick.declare.ordered import Kept, Ordered, Ordering
from tallystick.declare.sqltext import shape_of
from tallystick.errors import InstallError, NotInstalled
from tallystick.store.catalog import (
    calling,
    generated_as,
    qualified,
    relation_exists,
    schema_objects,
    view_used_columns,
)
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import schema_script

LAYOUT_VERSION = 4


@dataclass(frozen=True, slots=True)
class Installed:
    """An aggregate as the database knows it.

    `source` is None if the table is gone; `mirror` is the parent's name. An ordered one has its `ordering`, and the
    name of the source's `index` that it walks along. `rolled_back`: an operator keeps readers on the source. `version`
    is a number of its own for each installation and redefinition; `replaces` names the aggregate whose next version
    this is.
    """

    name: str
    kind: str
    definition: str
    fingerprint: str
    source_oid: int
    source: str | None
    phase: str
    serving: str
    is_partitioned: bool
    mirror: str | None
    generated: str | None
    ordering: str | None
    index: str | None
    rolled_back: bool
    version: int
    replaces: str | None

    @property
    def is_complete(self) -> bool:
        """A backfill has ended, and none has begun since."""
        return self.phase == "kept"

    @property
    def order(self) -> Ordering | None:
        """How the columns of an ordered one divide."""
        return Ordering.of(self.ordering) if self.ordering is not None else None

    @property
    def kept_in(self) -> str:
        """Suffix of the table that folds write."""
        return "state" if self.ordering is None else "bucket"

    @property
    def unit(self) -> str:
        """What folds write and verify compares, in the plural."""
        return "groups" if self.ordering is None else "buckets"


@dataclass(frozen=True, slots=True)
class Version:
    """The name under which a definition is installed, its number, and the aggregate that it is to replace."""

    name: str
    number: int
    replaces: str | None = None


def changes(found: Installed, aggregate: Kept) -> list[Change]:
    """How a declaration differs from what is installed; none if they are the same."""
    if found.fingerprint == aggregate.fingerprint:
        return []
    return compare(shape_of(found.name, found.definition), found.order, aggregate)


def next_version(cursor: Cursor, schema: str) -> int:
    """A number that no version in the schema has or had: an old snapshot may see the row of one that is gone."""
    query = "SELECT nextval(pg_get_serial_sequence(%s, 'version'))"
    return int(one_row(cursor.execute(query, (qualified(schema, "aggregate"),)))[0])


def ensure_schema(cursor: Cursor, schema: str) -> None:
    """Create the installation's own schema, tables and functions where they are missing.

    Raises:
        InstallError: the schema is of another version, or is not empty and not ours.
    """
    if is_schema_installed(cursor, schema):
        return
    strangers = schema_objects(cursor, schema)
    if strangers:
        raise InstallError(
            f'schema "{schema}" is not empty and not of tallystick: it has {", ".join(strangers)}.',
            hint="Use a schema of its own, such as the default, tally.",
        )
    path = cursor.execute("SELECT current_setting('search_path')").fetchone()
    cursor.execute("SET LOCAL search_path = pg_catalog")
    cursor.execute(schema_script(schema))
    cursor.execute("SELECT set_config('search_path', %s, true)", path)


def is_schema_installed(cursor: Cursor, schema: str) -> bool:
    """Whether there is an installation that this version can work with.

    Raises:
        InstallError: there is one of another version.
    """
    version = layout_version(cursor, schema)
    if version is not None and version < LAYOUT_VERSION:
        raise InstallError(
            f'schema "{schema}" has layout {version}, this version works with {LAYOUT_VERSION}.',
            hint="Run: tally upgrade",
        )
    return version is not None


def layout_version(cursor: Cursor, schema: str) -> int | None:
    """The layout of an installation, None where there is none.

    Raises:
        InstallError: it has no rows, or is of a later version than this one knows.
    """
    if not relation_exists(cursor, qualified(schema, "layout")):
        return None
    row = cursor.execute(_fill("SELECT version FROM {layout}", schema)).fetchone()
    if row is None:
        raise InstallError(
            f'schema "{schema}" has no rows: a dump was restored without its data.',
            hint=f"Run: DROP SCHEMA {Identifier(schema).as_string(None)} CASCADE, and install again.",
        )
    if row[0] > LAYOUT_VERSION:
        raise InstallError(
            f'schema "{schema}" has layout {row[0]}, this version works with {LAYOUT_VERSION} and earlier ones.',
            hint="Use the version of tallystick that installed it, or a later one.",
        )
    return int(row[0])


def every(cursor: Cursor, schema: str) -> list[Installed]:
    """All installed aggregates by name; none where nothing is installed."""
    if not is_schema_installed(cursor, schema):
        return []
    rows = cursor.execute(
        _fill(
            "SELECT a.name, a.kind, a.definition, a.fingerprint, a.source::oid::bigint,"
            " CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', n.nspname, c.relname) END, a.phase, a.serving,"
            " coalesce(c.relkind = 'p', false), a.mirror::text, a.generated, a.ordering,"
            " (SELECT format('%I.%I', n.nspname, i.relname) FROM pg_catalog.pg_index JOIN pg_catalog.pg_class AS i"
            " ON i.oid = indexrelid WHERE indrelid = a.source AND i.relname = a.index),"
            " a.rolled_back, a.version, a.replaces"
            " FROM {aggregate} AS a LEFT JOIN (pg_catalog.pg_class AS c"
            " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace) ON c.oid = a.source ORDER BY a.name",
            schema,
        )
    ).fetchall()
    return [Installed(*row) for row in rows]


def find(cursor: Cursor, schema: str, name: str) -> Installed | None:
    return next((found for found in every(cursor, schema) if found.name == name), None)


def get(cursor: Cursor, schema: str, name: str) -> Installed:
    """One installed aggregate.

    Raises:
        NotInstalled: there is none of this name.
    """
    found = find(cursor, schema, name)
    if found is None:
        raise NotInstalled(
            f'aggregate "{name}" is not installed in schema "{schema}".', hint=f"Run: tally install {name}"
        )
    return found


def registration(
    aggregate: Kept, version: Version, source: str, mirror: str | None, index: str | None
) -> list[Statement]:
    """Records an aggregate that has its objects and not yet its state."""
    ordering = aggregate.ordering.text() if isinstance(aggregate, Ordered) else None
    kind = "grouped" if ordering is None else "ordered"
    values = (
        *(version.name, kind, aggregate.definition, aggregate.fingerprint, source, mirror, ordering, index),
        *(version.number, version.replaces),
    )
    return [
        Statement(
            "known from here on, and served by its source",
            fill(
                "INSERT INTO {aggregate} (name, kind, definition, fingerprint, source, mirror, ordering, index,"
                " version, replaces, phase, serving)"
                " VALUES ({values}, 'building', 'direct')",
                aggregate=Identifier(aggregate.schema, "aggregate"), values=comma(map(literal, values)),
            ),
        ),
        Statement(
            "nothing is folded yet",
            fill(
                "INSERT INTO {watermark} (aggregate) VALUES ({name})",
                watermark=Identifier(aggregate.schema, "watermark"), name=literal(version.name),
            ),
        ),
    ]  # fmt: skip


def is_as_folded(cursor: Cursor, schema: str, found: Installed) -> bool:
    """Whether the source's rows are in the files that the buckets of an ordered aggregate stand for."""
    function = Identifier(schema, internal_name(found.name, "same_files"))
    return bool(one_row(cursor.execute(fill("SELECT {f}()", f=function)))[0])


def is_reset(cursor: Cursor, schema: str, name: str) -> bool:
    """Whether a TRUNCATE of the source, or of a partition, has left a marker that no fold has met yet."""
    reset = Identifier(schema, "reset")
    query = fill("SELECT EXISTS (SELECT FROM {r} WHERE aggregate = {n})", r=reset, n=literal(name))
    return bool(one_row(cursor.execute(query))[0])


def note_index(cursor: Cursor, schema: str, name: str, index: str) -> None:
    """Record the index of the source that an ordered aggregate walks along."""
    cursor.execute(
        fill(
            "UPDATE {aggregate} SET index = {index} WHERE name = {name}",
            aggregate=Identifier(schema, "aggregate"), index=literal(index), name=literal(name),
        )
    )  # fmt: skip


def build(cursor: Cursor, schema: str, name: str, generated: str | None) -> None:
    """Mark an aggregate as incomplete, and served by its source.

    Args:
        generated: how the used columns that are generated are computed now.
    """
    statement = fill(
        "UPDATE {aggregate} SET phase = 'building', serving = 'direct', generated = {generated} WHERE name = {name}",
        aggregate=Identifier(schema, "aggregate"), generated=literal(generated), name=literal(name),
    )  # fmt: skip
    cursor.execute(statement)


def serve_kept(cursor: Cursor, schema: str, name: str, generated: str | None) -> None:
    """Mark an aggregate as complete and let its readers use the kept half, unless an operator has rolled it back.

    Args:
        generated: how the used columns that are generated are computed now.
    Raises:
        InstallError: no trigger captures the source's changes.
    """
    refuse_uncaptured(cursor, schema, name)
    statement = fill(
        "UPDATE {aggregate} SET phase = 'kept', serving = CASE WHEN rolled_back THEN 'direct' ELSE 'kept' END,"
        " generated = {generated}, backfilled_at = clock_timestamp() WHERE name = {name}",
        aggregate=Identifier(schema, "aggregate"), generated=literal(generated), name=literal(name),
    )  # fmt: skip
    cursor.execute(statement)


def serve_direct(cursor: Cursor, schema: str, name: str) -> None:
    """Put all readers on the source until `end_rollback`, whatever else happens to the aggregate."""
    cursor.execute(
        _fill("UPDATE {aggregate} SET serving = 'direct', rolled_back = true WHERE name = {name}", schema, name)
    )


def end_rollback(cursor: Cursor, schema: str, name: str) -> None:
    """Let readers use the kept half again. Whoever changed the row since the snapshot makes this fail with 40001."""
    cursor.execute(
        _fill("UPDATE {aggregate} SET serving = 'kept', rolled_back = false WHERE name = {name}", schema, name)
    )


def give_up_state(cursor: Cursor, schema: str, name: str) -> None:
    """Nothing keeps the state up to date any more: it has to be backfilled."""
    cursor.execute(
        _fill("UPDATE {aggregate} SET phase = 'building', serving = 'direct' WHERE name = {name}", schema, name)
    )


def used_columns(cursor: Cursor, schema: str, found: Installed) -> tuple[str, ...]:
    """Columns of its source that an aggregate uses."""
    direct = qualified(schema, internal_name(found.name, "direct"))
    return tuple(column for column, _ in view_used_columns(cursor, direct, found.source_oid))


def used_as(cursor: Cursor, schema: str, found: Installed) -> str | None:
    """How its source computes the generated columns that an aggregate uses."""
    return generated_as(cursor, found.source_oid, used_columns(cursor, schema, found))


def is_captured(cursor: Cursor, schema: str, name: str) -> bool:
    """Whether row triggers capture the source's changes; triggers come and go all together."""
    return bool(calling(cursor, schema, [internal_name(name, "change")]))


def refuse_uncaptured(cursor: Cursor, schema: str, name: str) -> None:
    """Raise InstallError where nothing captures the source's changes."""
    if not is_captured(cursor, schema, name):
        raise InstallError(
            f'aggregate "{name}": its triggers are off, so changes of its source are not captured.',
            hint=f"Run: tally install {name} && tally backfill {name}",
        )


def take_over(cursor: Cursor, schema: str, old: Installed, new: Installed, mirror: str | None) -> None:
    """Give the rows of the next version the name of the old one, whose rows go.

    An operator's rollback stays.
    """
    for own in (*OWN_ROWS, "aggregate"):
        column = Identifier("name" if own == "aggregate" else "aggregate")
        table = Identifier(schema, own)
        cursor.execute(fill("DELETE FROM {t} WHERE {c} = {old}", t=table, c=column, old=literal(old.name)))
    rename(cursor, schema, new.name, old.name, new.version)
    cursor.execute(
        fill(
            "UPDATE {t} SET replaces = NULL, mirror = {mirror}, serving = {serving}, rolled_back = {rolled_back}"
            " WHERE name = {name}",
            t=Identifier(schema, "aggregate"), mirror=literal(mirror), name=literal(old.name),
            serving=literal("direct" if old.rolled_back else "kept"), rolled_back=literal(str(old.rolled_back)),
        )
    )  # fmt: skip


def rename(cursor: Cursor, schema: str, name: str, to: str, version: int) -> None:
    """Give the rows of an aggregate another name, those of its schedules too, and its definition a number.

    The floor of the folds, and the files of an ordered one, stay what they are: in a row that this transaction wrote.
    """
    names = {"name": literal(name), "to": literal(to)}
    is_own = SQL("xmin = folder::xid AND folder < pg_snapshot_xmax(pg_current_snapshot())")
    kept = fill(
        ", folder = pg_current_xact_id(), floor = CASE WHEN {is_own} THEN floor ELSE '0' END,"
        " files = CASE WHEN {is_own} THEN files END",
        is_own=is_own,
    )
    for own in (*OWN_ROWS, "schedule"):
        table, more = Identifier(schema, own), kept if own == "watermark" else SQL("")
        cursor.execute(
            fill("UPDATE {t} SET aggregate = {to}{more} WHERE aggregate = {name}", t=table, more=more, **names)
        )
    cursor.execute(
        fill(
            "UPDATE {t} SET name = {to}, version = {version} WHERE name = {name}",
            t=Identifier(schema, "aggregate"), version=literal(version), **names,
        )
    )  # fmt: skip


def remove(cursor: Cursor, schema: str, name: str) -> None:
    cursor.execute(_fill("DELETE FROM {aggregate} WHERE name = {name}", schema, name))


def _fill(template: LiteralString, schema: str, name: str = "") -> Composed:
    """No parameters beside quoted names: psycopg would take a % in them for a placeholder."""
    return fill(
        template,
        aggregate=Identifier(schema, "aggregate"),
        layout=Identifier(schema, "layout"),
        name=literal(name),
    )
