"""Backfills in chunks beside changes of the primary key, other names, other roles: what reviews have found."""

from collections.abc import Callable
from itertools import count
from typing import LiteralString

import pytest
from psycopg import sql
from sqlalchemy import URL, Column, Engine, Integer, MetaData, Table, Text, create_engine
from sqlalchemy.pool import NullPool

from tallystick import InstallError, Tally
from tallystick.maintain.backfill import Progress
from tallystick.maintain.redefine import redefine
from tests.backfills import Stopped, after, stop_after
from tests.conftest import Connect
from tests.oracle import assert_exact
from tests.order_oracle import assert_orders_exact, small_buckets
from tests.servers import Connection

QUERY: LiteralString = "SELECT place, count(*) AS items, sum(size) AS size FROM public.item GROUP BY place"
WIDER: LiteralString = "SELECT place, count(*) AS items, max(size) AS most FROM public.item GROUP BY place"
ROWS: LiteralString = "INSERT INTO item SELECT i, i % 3, i FROM generate_series(1, 50) AS s (i)"
MORE: LiteralString = "INSERT INTO item SELECT {} + i, i % 4, i FROM generate_series(1, 20) AS s (i)"
MOVE: LiteralString = "UPDATE item SET id = -id WHERE size % 2 = 0"

WRITE_AT_THE_SWITCH: LiteralString = """
CREATE FUNCTION write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO public.item SELECT CASE pg_typeof(id)::text WHEN 'bigint' THEN 10000000000 ELSE 10000 END, 9, 9
  FROM public.item LIMIT 1;
  RETURN NULL;
END $$;
CREATE TRIGGER write AFTER INSERT ON tally.event FOR EACH ROW WHEN (NEW.what = 'redefine') EXECUTE FUNCTION write()
"""


def declared(name: str = "by_place", query: str = QUERY) -> Tally:
    tally = Tally()
    tally.grouped(name, query)
    return tally


@pytest.fixture
def application(connect: Connect) -> Connection:
    connection = connect(autocommit=True)
    connection.execute("CREATE TABLE item (id integer PRIMARY KEY, place integer, size integer)")
    connection.execute(ROWS)
    return connection


def write(application: Connection, first: int) -> None:
    application.execute(sql.SQL(MORE).format(sql.Literal(first)))
    application.execute(MOVE)


def test_a_key_of_a_domain_goes_in_chunks(connect: Connect, engine: Engine) -> None:
    application = connect(autocommit=True)
    application.execute("CREATE DOMAIN code AS text COLLATE \"C\" CHECK (VALUE <> '')")
    application.execute("CREATE TABLE item (id code, place integer, size integer, PRIMARY KEY (place, id))")
    application.execute("INSERT INTO item SELECT 'c' || i, i % 3, i FROM generate_series(1, 50) AS s (i)")
    tally, seen = declared(), list[Progress]()
    tally.install(engine)

    def told(progress: Progress) -> None:
        seen.append(progress)
        application.execute("UPDATE item SET id = upper(id), size = size + 1 WHERE size % 3 = 0")

    tally.backfill(engine, chunk_rows=10, told=told)
    assert len(seen) >= 5
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


OTHER_KEYS: list[tuple[LiteralString, LiteralString]] = [
    ("SELECT", "ALTER TABLE item ALTER id TYPE bigint"),
    ("ALTER TABLE item DROP CONSTRAINT item_pkey", "ALTER TABLE item ADD PRIMARY KEY (id)"),
    ("SELECT", "ALTER TABLE item DROP CONSTRAINT item_pkey, ADD PRIMARY KEY (size, id)"),
    ("SELECT", "ALTER TABLE item DROP CONSTRAINT item_pkey"),
]


@pytest.mark.parametrize(("before", "change"), OTHER_KEYS)
def test_renamed_after_the_primary_key_has_changed(
    application: Connection, engine: Engine, before: LiteralString, change: LiteralString
) -> None:
    """The tables are those of the key that there was; a write must not fail for that."""
    application.execute(before)
    tally, renamed = declared(), declared("per_place")
    tally.install(engine)
    tally.backfill(engine)
    application.execute(change)
    renamed.rename(engine, "by_place", "per_place")
    application.execute("ALTER TABLE item ALTER id TYPE bigint")
    write(application, 10_000_000_000)
    assert_exact(engine, renamed)
    renamed.backfill(engine, force=True, chunk_rows=10, told=after(2, lambda: write(application, 20_000_000_000)))
    write(application, 30_000_000_000)
    assert_exact(engine, renamed)
    renamed.fold(engine)
    assert_exact(engine, renamed)


@pytest.mark.parametrize(("before", "change"), OTHER_KEYS)
def test_redefined_after_the_primary_key_has_changed(
    application: Connection, engine: Engine, before: LiteralString, change: LiteralString
) -> None:
    """The next version is built, and then the key changes before it is switched to; a write follows at once."""
    application.execute(before)
    tally, redefined = declared(), declared(query=WIDER)
    tally.install(engine)
    tally.backfill(engine)

    def stop(step: str) -> None:
        if step.startswith("verifying"):
            raise Stopped

    with pytest.raises(Stopped):
        redefine(engine, redefined.kept()[0], step=stop)
    application.execute(change)
    application.execute(WRITE_AT_THE_SWITCH)
    redefined.redefine(engine)
    assert application.execute("SELECT count(*) FROM item WHERE place = 9").fetchone() == (1,)
    application.execute("ALTER TABLE item ALTER id TYPE bigint")
    write(application, 10_000_000_000)
    assert_exact(engine, redefined)
    redefined.backfill(engine, force=True, chunk_rows=10, told=after(2, lambda: write(application, 20_000_000_000)))
    assert_exact(engine, redefined)


def test_renamed_in_the_middle(application: Connection, engine: Engine) -> None:
    tally, renamed = declared(), declared("per_place")
    tally.install(engine)
    with pytest.raises(Stopped):
        tally.backfill(engine, chunk_rows=10, told=stop_after(3, lambda: write(application, 1000)))
    renamed.rename(engine, "by_place", "per_place")
    write(application, 2000)
    renamed.backfill(engine, chunk_rows=10, told=after(3, lambda: write(application, 3000)))
    write(application, 4000)
    assert_exact(engine, renamed)
    renamed.fold(engine)
    assert_exact(engine, renamed)


@pytest.fixture
def installer(application: Connection, database: URL, make_role: Callable[[], str]) -> str:
    """An ordinary role that owns the table."""
    role = make_role()
    names = {"role": sql.Identifier(role), "database": sql.Identifier(str(database.database))}
    application.execute(sql.SQL("GRANT CREATE ON DATABASE {database} TO {role}").format(**names))
    application.execute(sql.SQL("ALTER TABLE item OWNER TO {role}").format(**names))
    return role


@pytest.fixture
def own(database: URL, installer: str) -> Engine:
    return create_engine(database.set(username=installer), poolclass=NullPool)


def test_begun_anew_by_a_superuser(application: Connection, engine: Engine, own: Engine) -> None:
    """The functions of capture have the rights of the role that installed them, whoever backfills."""
    tally = declared()
    tally.install(own)
    tally.backfill(own)
    with pytest.raises(Stopped):
        tally.backfill(engine, force=True, chunk_rows=10, told=stop_after(2, lambda: write(application, 1000)))
    tally.backfill(own, chunk_rows=10, told=after(2, lambda: write(application, 2000)))
    assert_exact(own, tally)
    write(application, 3000)
    tally.fold(own)
    assert_exact(own, tally)
    left = application.execute("SELECT to_regclass('tally.by_place__places'), to_regproc('tally.by_place__place')")
    assert left.fetchone() == (None, None)


def test_places_stay_where_the_source_belongs_to_another(
    application: Connection, own: Engine, installer: str, make_role: Callable[[], str]
) -> None:
    """Nothing can be taken off it any more; what is captured with places is right as well."""
    tally = declared()
    tally.install(own)
    names = {"heir": sql.Identifier(make_role()), "role": sql.Identifier(installer)}
    application.execute(sql.SQL("ALTER TABLE item OWNER TO {heir}").format(**names))
    application.execute(sql.SQL("GRANT SELECT ON item TO {role}").format(**names))
    tally.backfill(own, chunk_rows=10, told=after(2, lambda: write(application, 1000)))
    write(application, 2000)
    tally.fold(own)
    assert_exact(own, tally)


def test_places_with_nulls_begin_it_anew(application: Connection, engine: Engine) -> None:
    """Those of a time without the primary key: they compare with the ends of no chunk."""
    application.execute("ALTER TABLE item DROP CONSTRAINT item_pkey, ADD PRIMARY KEY (place, id)")
    tally, chunks = declared(), count(1)
    tally.install(engine)

    def told(_progress: Progress) -> None:
        match next(chunks):
            case 2:
                application.execute("ALTER TABLE item DROP CONSTRAINT item_pkey, ALTER id DROP NOT NULL")
                application.execute("INSERT INTO item SELECT NULL, i % 3, 1 FROM generate_series(1, 30) AS s (i)")
            case 7:
                application.execute("UPDATE item SET id = 100 + (ctid::text::point)[1]::integer WHERE id IS NULL")
                application.execute("ALTER TABLE item ADD PRIMARY KEY (place, id)")

    tally.backfill(engine, chunk_rows=4, told=told)
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


def test_without_the_primary_key_it_says_how_to_go_on(application: Connection, engine: Engine) -> None:
    tally = declared()
    tally.install(engine)

    def drop() -> None:
        application.execute("ALTER TABLE item DROP CONSTRAINT item_pkey")

    with pytest.raises(InstallError, match="has other types") as raised:
        tally.backfill(engine, chunk_rows=10, told=after(3, drop))
    assert "Run: tally backfill by_place" in str(raised.value)
    tally.backfill(engine)
    assert_exact(engine, tally)


@pytest.mark.parametrize("descends", [False, True])
def test_items_too_wide_for_the_end_of_a_chunk(connect: Connect, engine: Engine, descends: bool) -> None:
    application = connect(autocommit=True)
    application.execute('CREATE TABLE item (id integer PRIMARY KEY, kind text, title text COLLATE "C", size integer)')
    insert: LiteralString = (
        "INSERT INTO item SELECT i, nullif(i %% 3, 0), md5(i::text) || CASE WHEN i %% 5 < 2 THEN repeat('w', 6000)"
        " ELSE '' END, i FROM generate_series(%s::integer, %s::integer) AS s (i)"
    )
    application.execute(insert, (1, 70))
    item = Table(
        "item", MetaData(), Column("id", Integer, primary_key=True), Column("kind", Text), Column("title", Text),
        Column("size", Integer), schema="public",
    )  # fmt: skip
    title = item.c.title.desc() if descends else item.c.title.asc()
    tally, chunks = Tally(), count(1)
    tally.ordered("by_title", item, namespace=[item.c.kind], key=[title], sums={"size": item.c.size})

    def told(_progress: Progress) -> None:
        number = next(chunks)
        application.execute(insert, (70 + 3 * number, 72 + 3 * number))
        application.execute("UPDATE item SET title = reverse(title) WHERE id %% 7 = %s %% 7", (number,))
        application.execute("DELETE FROM item WHERE id = %s * 5", (number,))

    with small_buckets():
        tally.install(engine)
        tally.backfill(engine, chunk_rows=9, workers=2, told=told)
        assert_orders_exact(engine, tally)
        tally.fold(engine)
        assert_orders_exact(engine, tally)
