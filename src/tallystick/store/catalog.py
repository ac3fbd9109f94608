"""Questions to PostgreSQL's catalog, each answered with plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.sql import SQL, Composed, Identifier

from tallystick.compiler.snapshot import ColumnType
from tallystick.compiler.text import Statement, canonical
from tallystick.store.connection import Cursor, one_row
from tallystick.store.queries import named


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation that a view reads. `kind` and `persistence` are pg_class's letters."""

    oid: int
    name: str
    kind: str
    persistence: str
    inherits: bool


@dataclass(frozen=True, slots=True)
class ViewColumn:
    """A column of a view. `hashed_in` is the language of its type's own hash function, if it has one."""

    name: str
    type: ColumnType
    hashed_in: str | None


@dataclass(frozen=True, slots=True)
class CounterGrants:
    """What a role that was granted a part of the use of counters may do; `may_read` is true of any of them."""

    role: str
    may_enter: bool
    may_add: bool
    may_read: bool


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that holds a lock on a table. `age_s` is the age of its transaction in seconds."""

    pid: int
    role: str
    state: str
    age_s: int | None
    query: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.role}, {self.state}, for {self.age_s or 0} s: {self.query!r})"


def qualified(schema: str, name: str) -> str:
    """A quoted, qualified name as text, for `regclass` parameters."""
    return Identifier(schema, name).as_string(None)


def view_text(cursor: Cursor, view: str) -> str:
    return str(_one(cursor, "view_text", view=view))


def view_columns(cursor: Cursor, view: str) -> list[ViewColumn]:
    rows = cursor.execute(named("view_columns"), {"view": view}).fetchall()
    return [
        ViewColumn(name, ColumnType(text, base, scale, bool(fixed), collation, schema, domain, composite), hashed_in)
        for name, text, base, scale, fixed, collation, schema, domain, composite, hashed_in in rows
    ]


def view_relations(cursor: Cursor, view: str) -> list[Relation]:
    return [Relation(*row) for row in cursor.execute(named("view_relations"), {"view": view}).fetchall()]


def view_used_columns(cursor: Cursor, view: str, source: int) -> list[tuple[str, str]]:
    """Names of the columns used and `attgenerated` of each ("v" for virtual)."""
    rows = cursor.execute(named("view_used_columns"), {"view": view, "source": source}).fetchall()
    return [(name, generated) for name, generated in rows]


def view_foreign_code(cursor: Cursor, view: str) -> list[tuple[str, str]]:
    """Functions and operators of a view and their owners, where an owner is neither us nor a superuser."""
    return [(what, owner) for what, owner in cursor.execute(named("view_foreign_code"), {"view": view}).fetchall()]


def view_operators(cursor: Cursor, view: str) -> set[tuple[int, str]]:
    """Operators in a view that PostgreSQL did not bring itself: oid and name of each."""
    return {(oid, name) for oid, name in cursor.execute(named("view_operators"), {"view": view}).fetchall()}


def view_settings(cursor: Cursor, view: str) -> list[str]:
    """Settings of the session on which a view depends, which PostgreSQL does not tell."""
    return [setting for (setting,) in cursor.execute(named("view_settings"), {"view": view}).fetchall()]


def generated_as(cursor: Cursor, source: int, used: Sequence[str]) -> str | None:
    """How those of the columns that are generated and stored are computed; None if there are none."""
    text = _one(cursor, "generated_as", source=source, used=list(used))
    return None if text is None else str(text)


def may_read(cursor: Cursor, view: str, source: int) -> tuple[bool, str] | None:
    """Whether the owner of a view may read a table, and that owner's name; None if there is no such view."""
    row = cursor.execute(named("may_read"), {"view": view, "source": source}).fetchone()
    return None if row is None else (bool(row[0]), str(row[1]))


def counter_grants(cursor: Cursor, schema: str, names: list[str]) -> list[CounterGrants]:
    """Roles beside the owners that were granted adding to counters or reading one of these."""
    rows = cursor.execute(named("counter_grants"), {"schema": schema, "counters": names}).fetchall()
    return [CounterGrants(*row) for row in rows]


def counters_name_another_schema(cursor: Cursor, schema: str) -> bool:
    """Whether the schema was renamed since the functions of its counters were made."""
    return bool(_one(cursor, "named_otherwise", schema=schema, quoted=Identifier(schema).as_string(None)))


def publications_of_changes(cursor: Cursor, schema: str) -> list[str]:
    """Publications of updates or deletes that take in tables of the schema, by quoted name."""
    return [name for (name,) in cursor.execute(named("publications_of_changes"), {"schema": schema}).fetchall()]


def columns_of(cursor: Cursor, table: str) -> list[str]:
    return [name for (name,) in cursor.execute(named("columns_of"), {"table": table}).fetchall()]


def qualified_name(cursor: Cursor, name: str) -> str | None:
    """A relation's qualified and quoted name, None if there is none."""
    found = cursor.execute(named("qualified_name"), {"name": name}).fetchone()
    return str(found[0]) if found else None


def estimated_rows(cursor: Cursor, table: str) -> int:
    """Rows as of the last ANALYZE or VACUUM; 0 if there was none, or there is no such table."""
    return int(_one(cursor, "estimated_rows", table=table))


def buckets(cursor: Cursor, table: str) -> tuple[int, int]:
    """Number of buckets of an ordered aggregate, and of their levels; 0 if there is no such table."""
    if not relation_exists(cursor, table):
        return 0, 0
    query = "SELECT count(*) FILTER (WHERE level = 1), coalesce(max(level), 0) FROM {t}"
    found, levels = one_row(cursor.execute(SQL(query).format(t=canonical(table))))
    return found, levels


def counted_rows(cursor: Cursor, table: str) -> int:
    """Rows, counted; 0 if there is no such table."""
    if not relation_exists(cursor, table):
        return 0
    return int(one_row(cursor.execute(SQL("SELECT count(*) FROM {t}").format(t=canonical(table))))[0])


def missing(cursor: Cursor, schema: str, relations: list[str], functions: list[str]) -> list[str]:
    """Those of the names that the schema lacks."""
    parameters = {"schema": schema, "relations": relations, "functions": functions}
    return [name for (name,) in cursor.execute(named("missing"), parameters).fetchall()]


def schema_objects(cursor: Cursor, schema: str) -> list[str]:
    """Some relations and functions in a schema; none if there is no such schema."""
    return [name for (name,) in cursor.execute(named("schema_objects"), {"schema": schema}).fetchall()]


def relation_exists(cursor: Cursor, name: str) -> bool:
    return bool(_one(cursor, "relation_exists", name=name))


def present(cursor: Cursor, schema: str, names: Sequence[str]) -> list[str]:
    """Those relations of a schema that there are, by their qualified names."""
    return [name for name in (qualified(schema, each) for each in names) if relation_exists(cursor, name)]


def is_valid_index(cursor: Cursor, name: str) -> bool:
    """Whether there is an index of that name whose build has succeeded."""
    query = "SELECT indisvalid FROM pg_catalog.pg_index WHERE indexrelid = to_regclass(%s)"
    return bool(cursor.execute(query, (name,)).fetchall() == [(True,)])


def comment_on(cursor: Cursor, relation: str) -> str | None:
    """The comment of a relation, None if it has none or is none."""
    row = cursor.execute("SELECT pg_catalog.obj_description(to_regclass(%s), 'pg_class')", (relation,)).fetchone()
    return None if row is None else row[0]


def relation_kind(cursor: Cursor, name: str) -> str | None:
    """pg_class's letter for what a relation is, None if there is none."""
    row = cursor.execute(
        "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = to_regclass(%s)", (name,)
    ).fetchone()
    return None if row is None else str(row[0])


def blockers(cursor: Cursor, table: str, *, readers: bool) -> list[Blocker]:
    """Sessions in a table; mere readers among them if `readers`."""
    return [Blocker(*row) for row in cursor.execute(named("blockers"), {"table": table, "readers": readers}).fetchall()]


def are_held(cursor: Cursor, relations: Sequence[str]) -> bool:
    """Whether a session is in one of them that has been for longer than short queries take."""
    return bool(_one(cursor, "are_held", relations=list(relations)))


def blocking(cursor: Cursor, pid: int, table: int) -> list[Blocker]:
    """Sessions that a session waits for, or, as a pooler does not tell its number, the build of an index on a table."""
    return [Blocker(*row) for row in cursor.execute(named("blocking"), {"pid": pid, "table": table}).fetchall()]


def triggers(cursor: Cursor, tables: list[int]) -> dict[int, dict[str, str]]:
    """By table, its triggers and `tgenabled` of each ("D": disabled), those that a partition has of its parent too."""
    found: dict[int, dict[str, str]] = {table: {} for table in tables}
    for table, trigger, enabled in cursor.execute(named("triggers"), {"tables": tables}).fetchall():
        found[table][trigger] = enabled
    return found


def calling(cursor: Cursor, schema: str, functions: list[str]) -> list[tuple[str, str]]:
    """Tables and their triggers that call one of the functions; not the copies that partitions have."""
    found = cursor.execute(named("calling"), {"schema": schema, "functions": functions}).fetchall()
    return [(table, trigger) for table, trigger in found]


def tree(cursor: Cursor, source: int) -> list[Relation]:
    """All that is below a partitioned table, at any depth: kind "p" leads further down, the others hold rows."""
    rows = cursor.execute(named("tree"), {"source": source}).fetchall()
    return [Relation(oid, name, kind, persistence, inherits=True) for oid, name, kind, persistence in rows]


def partition_of(cursor: Cursor, name: str) -> tuple[Relation, str] | None:
    """A partition and the name of what it is attached to; None if it is no partition."""
    row = cursor.execute(named("partition"), {"name": name}).fetchone()
    return None if row is None else (Relation(row[0], row[1], row[2], row[3], inherits=True), row[4])


def copied_columns(cursor: Cursor, parent: str, columns: list[str]) -> list[tuple[str, bool, bool]]:
    """Of each column of a parent: its name, whether it takes no NULL, whether we may update it."""
    rows = cursor.execute(named("copied_columns"), {"parent": parent, "columns": columns}).fetchall()
    return [(name, required, allowed) for name, required, allowed in rows]


def parent_keys(cursor: Cursor, source: str, parent: str) -> list[tuple[list[str], list[str]]]:
    """Foreign keys from a source to a parent (columns there and here), then the parent's primary key (none there)."""
    rows = cursor.execute(named("parent_keys"), {"source": source, "parent": parent}).fetchall()
    return [(there, here) for there, here in rows]


def source_state(cursor: Cursor, source: int, state: str) -> tuple[bool, str, str | None]:
    """Whether a table inherits or is inherited from, its persistence, and the persistence of a state table."""
    inherits, persistence, kept = one_row(cursor.execute(named("source_state"), {"source": source, "state": state}))
    return bool(inherits), persistence, kept


def primary_key(cursor: Cursor, source: int) -> list[str]:
    """Columns of a table's primary key, in its order; none without one."""
    return [name for (name,) in cursor.execute(named("primary_key"), {"source": source}).fetchall()]


def equal_index(cursor: Cursor, source: int, wanted: str) -> str | None:
    """A valid index of a table that equals another one in columns, directions and condition."""
    row = cursor.execute(named("equal_index"), {"source": source, "wanted": wanted}).fetchone()
    return None if row is None else str(row[0])


def index_definition(cursor: Cursor, index: str) -> str:
    """CREATE INDEX, with all names qualified but those of the table's columns; sets the search path."""
    cursor.execute(FIXED_PATH.sql)
    return str(one_row(cursor.execute("SELECT pg_get_indexdef(%s::regclass)", (index,)))[0])


def children(cursor: Cursor, parent: int) -> list[Relation]:
    """What is directly below a partitioned table."""
    rows = cursor.execute(named("children"), {"parent": parent}).fetchall()
    return [Relation(oid, name, kind, persistence, inherits=True) for oid, name, kind, persistence in rows]


def has_primary_key(cursor: Cursor, source: int) -> bool:
    return bool(_one(cursor, "has_primary_key", source=source))


FIXED_PATH = Statement("names resolve in pg_catalog only", Composed([SQL("SET LOCAL search_path = pg_catalog")]))
"""For the rest of the transaction; PostgreSQL prints all other names qualified."""


def drop_view(cursor: Cursor, schema: str, name: str) -> None:
    cursor.execute(SQL("DROP VIEW {view}").format(view=Identifier(schema, name)))


def create_view(cursor: Cursor, schema: str, name: str, query: Composed | SQL) -> None:
    cursor.execute(SQL("CREATE VIEW {view} AS {query}").format(view=Identifier(schema, name), query=query))


def _one(cursor: Cursor, query: str, **parameters: Any) -> Any:
    return one_row(cursor.execute(named(query), parameters))[0]
