"""A state machine that writes to a table in every way there is, and asks the oracle after each step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg import sql
from sqlalchemy import Engine, create_engine, func, select

from tallystick import Tally
from tallystick.declare.names import internal_name
from tallystick.errors import NotKept, NotWhole
from tallystick.maintain.audit import audit_step
from tests.backfills import begin
from tests.oracle import Oracle, assert_exact, told
from tests.property.world import COLUMNS, DECLARED, TABLE, Row, changes, declared, rows, slices
from tests.servers import Connection, Server

# HYPOTHESIS_PROFILE=soak looks for longer; nothing here is timed.
_ALWAYS = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.register_profile("machine", _ALWAYS, max_examples=25, stateful_step_count=15)
settings.register_profile("soak", _ALWAYS, max_examples=30, stateful_step_count=50)

# Maintenance waits for nobody; where it would, this makes it fail instead of hang.
IMPATIENT = "-c lock_timeout=5s -c jit=off"
# The writer waits for rows that its own prepared transactions have locked, and then gives up soon.
HASTY = "-c lock_timeout=200ms -c jit=off"
ROLES = ("origin", "replica")
LIST = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
VALUES = sql.SQL("(%s::integer, %s, %s::integer, %s::bigint, %s::numeric, %s::numeric, %s::float8, %s::boolean,"
                 " %s::timestamptz, %s)")  # fmt: skip
IDENTIFIED = sql.SQL("(%s::bigint, %s::integer, %s, %s::integer, %s::bigint, %s::numeric, %s::numeric, %s::float8,"
                     " %s::boolean, %s::timestamptz, %s)")  # fmt: skip
IDS = st.integers(1, 12)
CHUNK_ROWS = 3


class World:
    """One database of one server: the writer of the machine, an observer, a reader with an old snapshot."""

    table = TABLE

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = server.create_database(server.template("empty"))
        self.tally: Tally = declared()
        self.engine: Engine = create_engine(
            server.url(self.name), connect_args={"options": IMPATIENT, "prepare_threshold": None}
        )
        self.writer, self.observer, self.reader = (
            server.connect(self.name, autocommit=True, options=options) for options in (HASTY, IMPATIENT, IMPATIENT)
        )
        self.writer.execute(self.table)
        self.tally.install(self.engine)
        self.own, self.others, self.old = (Oracle(c, self.tally) for c in (self.writer, self.observer, self.reader))

    def reset(self) -> None:
        """An empty table and state computed anew, whatever the last example left."""
        self.writer.execute("SET session_replication_role = origin")
        self.writer.execute("DELETE FROM item")  # TRUNCATE would have every statement of the oracle planned again
        self.writer.execute("SELECT setval('item_id_seq', 1000, false)")
        self.tally.install(self.engine)
        self.tally.backfill(self.engine)
        self.tally.resume(self.engine)

    def close(self) -> None:
        for connection in (self.writer, self.observer, self.reader):
            connection.close()
        self.engine.dispose()
        self.server.drop_database(self.name)


def damage_and_repair(observer: Connection, engine: Engine, tally: Tally, name: str, kept_in: str) -> None:
    """Have one row of what is kept be wrong for a moment, if there is anything that can be repaired."""
    try:
        tally.repair(engine, only=[name], dry_run=True)
    except (NotKept, NotWhole):
        return
    damage = sql.SQL("UPDATE {t} SET n = n + 1 WHERE ctid = (SELECT min(ctid) FROM {t} WHERE n > 0)").format(
        t=sql.Identifier("tally", internal_name(name, kept_in))
    )
    damaged = observer.execute(damage).rowcount
    (repaired,) = tally.repair(engine, only=[name])
    assert repaired.groups >= damaged


class Machine(RuleBasedStateMachine):
    """Rules write, fold, backfill, switch and reinstall; the oracle must hold for all three sessions after each."""

    world: World

    @initialize()
    def empty(self) -> None:
        self.world.reset()
        self.tally, self.engine, self.writer = self.world.tally, self.world.engine, self.world.writer
        self.savepoints: list[bool] = []  # for the transaction and each savepoint in it: has it truncated?
        self.prepared: dict[str, bool] = {}  # two-phase transactions by name: has it truncated?
        self.has_old_reader = False
        self.was_made_anew = False

    @property
    def is_open(self) -> bool:
        return bool(self.savepoints)

    @property
    def is_locked(self) -> bool:
        """TRUNCATE keeps everyone else out of the table until its transaction ends."""
        return any(self.savepoints) or self.is_locked_for_all

    @property
    def is_locked_for_all(self) -> bool:
        """So does that of a prepared transaction, and the writer too."""
        return any(self.prepared.values())

    @property
    def is_quiet(self) -> bool:
        """Nobody is in the table, nor has an old snapshot."""
        return not self.is_open and not self.prepared and not self.has_old_reader

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """What is done within may fail only where a prepared transaction of the writer's own is in the way."""
        if not self.prepared:
            yield
            return
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure), self.writer.transaction():
            yield

    def write(self, statement: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> None:
        """Run a statement of the writer."""
        if not self.is_locked_for_all:
            with self.attempt():
                self.writer.execute(statement, parameters or None)

    # Writes

    @rule(row=rows)
    def insert(self, row: Row) -> None:
        self._insert([row])

    @rule(several=st.lists(rows, min_size=2, max_size=6))
    def insert_many(self, several: list[Row]) -> None:
        self._insert(several)

    @rule(part=slices)
    def insert_select(self, part: tuple[int, int]) -> None:
        """Doubles part of a small table; wide values come from disk here, and from the client elsewhere."""
        statement = "INSERT INTO item ({c}) SELECT {c} FROM item WHERE id %% %s = %s ORDER BY id LIMIT 8"
        self.write(sql.SQL(statement).format(c=LIST), part)

    @rule(several=st.lists(rows, min_size=1, max_size=6))
    def copy(self, several: list[Row]) -> None:
        if self.is_locked_for_all:
            return
        with (
            self.attempt(),
            self.writer.cursor() as cursor,
            cursor.copy(sql.SQL("COPY item ({}) FROM STDIN").format(LIST)) as stream,
        ):
            for row in several:
                stream.write_row(row)

    @rule(upserted=st.dictionaries(IDS, rows, min_size=1, max_size=4), updates=st.booleans())
    def upsert(self, upserted: dict[int, Row], updates: bool) -> None:
        excluded = (sql.SQL("{c} = excluded.{c}").format(c=sql.Identifier(column)) for column in COLUMNS)
        action = sql.SQL("UPDATE SET {}").format(sql.SQL(", ").join(excluded)) if updates else sql.SQL("NOTHING")
        statement = sql.SQL("INSERT INTO item (id, {columns}) VALUES {rows} ON CONFLICT (id) DO {action}").format(
            columns=LIST, rows=sql.SQL(", ").join([IDENTIFIED] * len(upserted)), action=action
        )
        self.write(statement, [value for id_, row in upserted.items() for value in (id_, *row)])

    @rule(merged=st.dictionaries(IDS, rows, min_size=1, max_size=4))
    def merge(self, merged: dict[int, Row]) -> None:
        """One statement that deletes, updates and inserts."""
        statement = sql.SQL(
            "MERGE INTO item USING (VALUES {rows}) AS new (id, {columns}) ON item.id = new.id"
            " WHEN MATCHED AND new.ok THEN DELETE"
            " WHEN MATCHED THEN UPDATE SET k = new.k, n = new.n, num = new.num"
            " WHEN NOT MATCHED THEN INSERT (id, {columns}) VALUES (new.id, {values})"
        ).format(
            rows=sql.SQL(", ").join([IDENTIFIED] * len(merged)),
            columns=LIST,
            values=sql.SQL(", ").join(sql.Identifier("new", column) for column in COLUMNS),
        )
        self.write(statement, [value for id_, row in merged.items() for value in (id_, *row)])

    @rule(part=slices, row=rows)
    def replace(self, part: tuple[int, int], row: Row) -> None:
        """One statement with three parts that see one snapshot."""
        statement = (
            "WITH gone AS (DELETE FROM item WHERE id %% %s = %s RETURNING k, label, n),"
            " turned AS (UPDATE item SET ok = NOT ok WHERE id %% %s <> %s AND ok IS NOT NULL)"
            " INSERT INTO item (k, label, n, big) SELECT k, label, n, %s::bigint FROM gone"
        )
        self.write(statement, [*part, *part, row.big])

    @rule(part=slices, change=changes)
    def update(self, part: tuple[int, int], change: tuple[str, str | None]) -> None:
        column, value = change
        statement = sql.SQL("UPDATE item SET {} = %s WHERE id %% %s = %s").format(sql.Identifier(column))
        self.write(statement, [value, *part])

    @rule(part=slices)
    def update_from_itself(self, part: tuple[int, int]) -> None:
        """Equal values in another spelling, and signs turned."""
        statement = (
            "UPDATE item SET num = num * 1.00, ratio = - ratio, n = - nullif(n, -2147483648), label = upper(label)"
            " WHERE id %% %s = %s"
        )
        self.write(statement, part)

    @rule(part=slices)
    def update_unused(self, part: tuple[int, int]) -> None:
        self.write("UPDATE item SET note = md5(coalesce(note, '')) WHERE id %% %s = %s", part)

    @rule(part=slices, row=rows)
    def move(self, part: tuple[int, int], row: Row) -> None:
        statement = "UPDATE item SET k = %s, label = %s, at = %s WHERE id %% %s = %s"
        self.write(statement, [row.k, row.label, row.at, *part])

    @rule(part=slices)
    def renumber(self, part: tuple[int, int]) -> None:
        """Primary keys change, and with them the partition, where there are any."""
        self.write("UPDATE item SET id = nextval('item_id_seq') WHERE id %% %s = %s", part)

    @rule(part=slices)
    def delete(self, part: tuple[int, int]) -> None:
        self.write("DELETE FROM item WHERE id %% %s = %s", part)

    @rule(column=st.sampled_from(COLUMNS[:-1]))
    def delete_greatest(self, column: str) -> None:
        statement = "DELETE FROM item WHERE {c} = (SELECT {c} FROM item ORDER BY {c} DESC NULLS LAST LIMIT 1)"
        self.write(sql.SQL(statement).format(c=sql.Identifier(column)))

    @precondition(lambda self: not self.has_old_reader and not self.prepared)
    @rule(several=st.lists(rows, max_size=3))
    def truncate(self, several: list[Row]) -> None:
        """TRUNCATE, and inserts after it in the same transaction."""
        if self.is_open:
            self.savepoints[-1] = True
            self.writer.execute("TRUNCATE item")
            self._insert(several)
        else:
            with self.writer.transaction():
                self.writer.execute("TRUNCATE item")
                self._insert(several)

    # Transactions

    @precondition(lambda self: not self.is_open)
    @rule(level=st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]))
    def begin(self, level: LiteralString) -> None:
        self.writer.execute(sql.SQL("BEGIN ISOLATION LEVEL {}").format(sql.SQL(level)))
        self.savepoints = [False]

    @precondition(lambda self: self.is_open)
    @rule()
    def savepoint(self) -> None:
        self._on_savepoint("SAVEPOINT {}", len(self.savepoints))
        self.savepoints.append(False)

    @precondition(lambda self: len(self.savepoints) > 1)
    @rule()
    def rollback_to_savepoint(self) -> None:
        self.savepoints.pop()
        self._on_savepoint("ROLLBACK TO SAVEPOINT {}", len(self.savepoints))

    @precondition(lambda self: len(self.savepoints) > 1)
    @rule()
    def release_savepoint(self) -> None:
        has_truncated = self.savepoints.pop()
        self.savepoints[-1] |= has_truncated
        self._on_savepoint("RELEASE SAVEPOINT {}", len(self.savepoints))

    @precondition(lambda self: self.is_open)
    @rule(end=st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))
    def end(self, end: LiteralString) -> None:
        self.writer.execute(end)
        self.savepoints = []

    @precondition(lambda self: self.is_open and len(self.prepared) < 2)
    @rule()
    def prepare(self) -> None:
        name = f"{self.world.name} {len(self.prepared)}"
        self.writer.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(name)))
        self.prepared[name] = any(self.savepoints)
        self.savepoints = []

    @precondition(lambda self: self.prepared)
    @rule(end=st.sampled_from(["COMMIT PREPARED {}", "COMMIT PREPARED {}", "ROLLBACK PREPARED {}"]))
    def end_prepared(self, end: LiteralString) -> None:
        """In another session; two-phase transactions outlive their own."""
        name, _ = self.prepared.popitem()
        self.world.observer.execute(sql.SQL(end).format(sql.Literal(name)))

    @precondition(lambda self: not self.is_open)
    @rule(role=st.sampled_from(ROLES))
    def replay(self, role: LiteralString) -> None:
        """As logical replication writes: without statement triggers."""
        self.writer.execute(sql.SQL("SET session_replication_role = {}").format(sql.Literal(role)))

    # Maintenance, beside the open transaction

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from([None, *DECLARED]))
    def fold(self, name: str | None) -> None:
        self.tally.fold(self.engine, only=name and [name])

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from([None, *DECLARED]))
    def backfill(self, name: str | None) -> None:
        self.tally.backfill(self.engine, only=name and [name], chunk_rows=CHUNK_ROWS)

    @precondition(lambda self: self.is_quiet)
    @rule(name=st.sampled_from(list(DECLARED)))
    def begin_backfill(self, name: str) -> None:
        """It stays begun, with a chunk counted, until some later step goes on with it."""
        begin(self.engine, self.tally, [name])

    @rule(name=st.sampled_from(list(DECLARED)))
    def roll_back(self, name: str) -> None:
        """Whoever is in the table."""
        self.tally.rollback(self.engine, only=[name])

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from(list(DECLARED)))
    def resume(self, name: str) -> None:
        with suppress(NotKept, NotWhole):  # there is nothing that could be served
            (resumed,) = self.tally.resume(self.engine, only=[name])
            assert resumed.serving == "kept"

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from(list(DECLARED)))
    def audit(self, name: str) -> None:
        """A part of it, of one group; the next time the next."""
        assert audit_step(self.engine, "tally", name, budget_s=0).drifted == 0

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from(list(DECLARED)))
    def damage_and_repair(self, name: str) -> None:
        damage_and_repair(self.world.observer, self.engine, self.tally, name, "state")

    @precondition(lambda self: self.is_quiet and not self.was_made_anew)
    @rule(name=st.sampled_from(list(DECLARED)))
    def reinstall(self, name: str) -> None:
        """It stays in its building phase until some later step backfills it. Slow, so once in an example."""
        self.was_made_anew = True
        self.tally.uninstall(self.engine, only=[name])
        assert self.tally.install(self.engine, only=[name]) == [name]

    @precondition(lambda self: self.is_quiet and not self.was_made_anew)
    @rule(name=st.sampled_from(list(DECLARED)))
    def redefine(self, name: str) -> None:
        """With a measure more, and back. As slow."""
        self.was_made_anew = True
        other = Tally()
        other.grouped(name, DECLARED[name].replace("FROM item", ", max(id) AS newest FROM item"))
        for each in (other, self.tally):
            each.redefine(self.engine, only=[name], chunk_rows=CHUNK_ROWS)
            assert_exact(self.engine, each)

    # Readers

    @precondition(lambda self: not self.has_old_reader and not self.is_locked)
    @rule()
    def take_snapshot(self) -> None:
        self.world.reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        self.has_old_reader = True

    @precondition(lambda self: self.has_old_reader)
    @rule()
    def release_snapshot(self) -> None:
        self.world.reader.execute("COMMIT")
        self.has_old_reader = False

    @precondition(lambda self: not self.is_locked)
    @rule(name=st.sampled_from([name for name in DECLARED if name != "totals"]), k=st.integers(1, 4), data=st.data())
    def top(self, name: str, k: int, data: st.DataObject) -> None:
        aggregate = self.tally[name]
        measure = data.draw(st.sampled_from([measure.name for measure in aggregate.shape.measures]))
        place = func.row_number().over().label("place")
        kept, direct = (
            select(place, best) for best in (half.top(measure, k).subquery() for half in (aggregate, aggregate.direct))
        )
        for one, other in ((kept, direct), (direct, kept)):
            with self.engine.connect() as connection:
                odd = select(func.count()).select_from(one.except_all(other).subquery())
                assert connection.scalar(odd) == 0

    @precondition(lambda self: not self.is_locked)
    @rule(k=st.sampled_from([None, 1, 2]))
    def get(self, k: int | None) -> None:
        numbers = self.tally["numbers"]
        odd = select(func.count()).select_from(numbers.get(k=k).except_all(numbers.direct.get(k=k)).subquery())
        with self.engine.connect() as connection:
            assert connection.scalar(odd) == 0

    # The oracle

    @precondition(lambda self: self.is_open and not self.is_locked_for_all)
    @invariant()
    def own_writes_are_read(self) -> None:
        self._check(self.world.own)

    @precondition(lambda self: not self.is_locked)
    @invariant()
    def others_read_what_is_committed(self) -> None:
        self._check(self.world.others)

    @precondition(lambda self: self.has_old_reader and not self.is_locked_for_all)
    @invariant()
    def old_snapshot_stays_right(self) -> None:
        self._check(self.world.old)

    def teardown(self) -> None:
        for connection in (self.world.writer, self.world.reader):
            connection.rollback()
        while self.prepared:
            self.end_prepared("ROLLBACK PREPARED {}")

    def _check(self, oracle: Oracle) -> None:
        found = oracle.differences()
        assert not found, told(found)

    def _insert(self, several: list[Row]) -> None:
        if several:
            statement = sql.SQL("INSERT INTO item ({columns}) VALUES {rows}").format(
                columns=LIST, rows=sql.SQL(", ").join([VALUES] * len(several))
            )
            self.write(statement, [value for row in several for value in row])

    def _on_savepoint(self, statement: LiteralString, number: int) -> None:
        self.writer.execute(sql.SQL(statement).format(sql.Identifier(f"s{number}")))
