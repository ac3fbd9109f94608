"""A state machine that writes to the source of ordered aggregates, and asks everything after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from random import Random
from types import MappingProxyType
from typing import Any, LiteralString, cast

import psycopg
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from psycopg import sql
from sqlalchemy import Connection, create_engine

from tallystick.compiler import buckets
from tallystick.errors import NotKept
from tallystick.maintain.audit import audit_step
from tests.backfills import begin
from tests.property.machine import CHUNK_ROWS, IMPATIENT, damage_and_repair
from tests.property.order_checks import Reader, check_buckets
from tests.property.order_model import AGES, CREATE, GROUPS, NAMES, PARTS, Model, Ranks, Row, Rows, declared
from tests.servers import Server

COLUMNS = sql.SQL(", ").join(map(sql.Identifier, Row._fields))
VALUES = sql.SQL("({})").format(sql.SQL(", ").join([sql.Placeholder()] * len(Row._fields)))
NOCASE = "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
RANKS = "SELECT n, dense_rank() OVER (ORDER BY n COLLATE {}) FROM unnest(%s::text[]) AS n"

fields: dict[str, st.SearchStrategy[Any]] = {
    "g": st.sampled_from([*GROUPS, *GROUPS, None]),
    "name": st.sampled_from([*NAMES, None]),
    "at": st.sampled_from([*AGES, None]),
    "minutes": st.one_of(st.none(), st.integers(-9, 9), st.just(2_147_483_647)),
    "price": st.one_of(st.none(), st.decimals(-99, 99, places=2)),
    "ratio": st.one_of(st.none(), st.sampled_from([0.1, 0.2, -0.3, 1e100, -1e100, 1e-100])),
    "gone": st.sampled_from([False, False, False, True]),
}
changes = st.sampled_from(list(fields)).flatmap(lambda column: st.tuples(st.just(column), fields[column]))
slices = st.integers(1, 5).flatmap(lambda step: st.tuples(st.just(step), st.integers(0, step - 1)))
bodies = st.tuples(st.sampled_from(PARTS), *fields.values())
seeds = st.integers(0, 2**32)


class World:
    """One database of one server: the writer of the machine, an observer, a reader with an old snapshot."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = server.create_database(server.template("empty"))
        self.engine = create_engine(server.url(self.name), connect_args={"options": IMPATIENT})
        with server.connect(self.name, autocommit=True) as connection:
            try:
                connection.execute(NOCASE)
            except psycopg.errors.FeatureNotSupported:  # a server without ICU
                connection.execute('CREATE COLLATION nocase FROM "C"')
            connection.execute(CREATE)
            ranks: list[dict[str, int]] = [
                dict(connection.execute(sql.SQL(RANKS).format(sql.Identifier(name)), [list(NAMES)]).fetchall())
                for name in ("C", "nocase")
            ]
        self.models: list[Model] = declared(Ranks(*ranks))
        self.tally = self.models[0].tally
        self.tally.install(self.engine)
        self.writer, self.observer, self.reader = (
            self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") for _ in range(3)
        )

    def reset(self) -> None:
        run(self.writer, "DELETE FROM item")
        self.tally.backfill(self.engine, force=True)
        self.tally.resume(self.engine)

    def close(self) -> None:
        for connection in (self.writer, self.observer, self.reader):
            connection.close()
        self.engine.dispose()
        self.server.drop_database(self.name)


def run(connection: Connection, statement: LiteralString | sql.Composed, parameters: Sequence[Any] = ()) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute(statement, parameters or None)


def frozen(rows: Mapping[tuple[int, int], Row]) -> Rows:
    return MappingProxyType(dict(rows))


class OrderedMachine(RuleBasedStateMachine):
    """Rules write, fold and backfill; the model knows what is committed, what the writer sees, and an old snapshot."""

    world: World

    @initialize(seed=seeds)
    def empty(self, seed: int) -> None:
        self.world.reset()
        self.tally, self.engine, self.writer = self.world.tally, self.world.engine, self.world.writer
        self.seed, self.steps, self.last_id = seed, 0, 0
        self.rows: Rows = frozen({})  # as the writer sees them
        self.committed: Rows = self.rows
        self.saved: list[tuple[Rows, bool]] = []  # at BEGIN and each savepoint, and whether TRUNCATE was before it
        self.has_truncated = False
        self.old: Rows | None = None
        self.is_folded = True
        self.own, self.others, self.past = (
            Reader(connection, self.world.models)
            for connection in (self.writer, self.world.observer, self.world.reader)
        )
        for g in GROUPS:  # there are buckets of several levels from the beginning
            self.insert_bulk(seed=seed, size=50, g=g)
        self.fold()

    @property
    def is_open(self) -> bool:
        return bool(self.saved)

    @property
    def is_locked(self) -> bool:
        """TRUNCATE keeps everyone else out of the table until its transaction ends."""
        return self.is_open and self.has_truncated

    def write(
        self, statement: LiteralString | sql.Composed, parameters: Sequence[Any], rows: Mapping[Any, Row]
    ) -> None:
        run(self.writer, statement, parameters)
        self.rows = frozen(rows)
        if not self.is_open:
            self.commit()

    def commit(self) -> None:
        self.committed, self.is_folded, self.has_truncated = self.rows, False, False

    def new(self, body: Sequence[Any]) -> Row:
        self.last_id += 1
        return Row(body[0], self.last_id, *body[1:])

    def chosen(self, part: tuple[int, int]) -> list[Row]:
        step, left = part
        return [row for row in self.rows.values() if row.id % step == left]

    def changed(self, rows: Sequence[Row], **change: Any) -> dict[tuple[int, int], Row]:
        gone = {(row.part, row.id) for row in rows}
        kept = {pk: row for pk, row in self.rows.items() if pk not in gone}
        new = [row._replace(**change) for row in rows]
        return {**kept, **{(row.part, row.id): row for row in new}}

    def insert_rows(self, rows: Sequence[Row]) -> None:
        statement = sql.SQL("INSERT INTO item ({}) VALUES {}").format(COLUMNS, sql.SQL(", ").join([VALUES] * len(rows)))
        known = {**self.rows, **{(row.part, row.id): row for row in rows}}
        self.write(statement, [value for row in rows for value in row], known)

    # Writes

    @rule(several=st.lists(bodies, min_size=1, max_size=5))
    def insert(self, several: list[tuple[Any, ...]]) -> None:
        self.insert_rows([self.new(body) for body in several])

    @rule(seed=seeds, size=st.integers(5, 60), g=fields["g"])
    def insert_bulk(self, seed: int, size: int, g: int | None) -> None:
        """Enough to have buckets split, in one namespace."""
        random = Random(seed)
        self.insert_rows([
            self.new((
                random.choice(PARTS), g, random.choice(NAMES), random.choice(AGES), random.randint(-5, 5),
                Decimal(random.randint(-500, 500)).scaleb(-2), random.choice((None, 0.1, 0.7)), random.random() < 0.1,
            ))
            for _ in range(size)
        ])  # fmt: skip

    @rule(seed=seeds, several=st.lists(bodies, min_size=1, max_size=4))
    def upsert(self, seed: int, several: list[tuple[Any, ...]]) -> None:
        """Rows that are there get new values by ON CONFLICT, others are inserted."""
        random = Random(seed)
        known = random.sample(sorted(self.rows), min(len(self.rows), len(several) // 2))
        rows = [Row(*pk, *body[1:]) for pk, body in zip(known, several, strict=False)]
        rows += [self.new(body) for body in several[len(rows) :]]
        updated = (sql.SQL("{c} = excluded.{c}").format(c=sql.Identifier(column)) for column in fields)
        statement = sql.SQL("INSERT INTO item ({}) VALUES {} ON CONFLICT (part, id) DO UPDATE SET {}").format(
            COLUMNS, sql.SQL(", ").join([VALUES] * len(rows)), sql.SQL(", ").join(updated)
        )
        known_rows = {**self.rows, **{(row.part, row.id): row for row in rows}}
        self.write(statement, [value for row in rows for value in row], known_rows)

    @rule(part=slices, change=changes)
    def update(self, part: tuple[int, int], change: tuple[str, Any]) -> None:
        """A column of namespaces, keys, sums or filters changes."""
        column, value = change
        statement = sql.SQL("UPDATE item SET {} = %s WHERE id %% %s = %s").format(sql.Identifier(column))
        self.write(statement, [value, *part], self.changed(self.chosen(part), **{column: value}))

    @rule(part=slices, at=st.sampled_from(AGES), g=fields["g"], name=fields["name"])
    def move(self, part: tuple[int, int], at: int, g: int | None, name: str | None) -> None:
        statement: LiteralString = "UPDATE item SET at = %s, g = %s, name = %s WHERE id %% %s = %s"
        self.write(statement, [at, g, name, *part], self.changed(self.chosen(part), at=at, g=g, name=name))

    @rule(part=slices)
    def renumber(self, part: tuple[int, int]) -> None:
        """Primary keys change: ids go to behind 10,000 and come back from there."""
        rows = self.chosen(part)
        known = self.changed(rows)
        for row in rows:
            del known[row.part, row.id]
            known[row.part, (row.id + 10_000) % 20_000] = row._replace(id=(row.id + 10_000) % 20_000)
        self.write("UPDATE item SET id = (id + 10000) %% 20000 WHERE id %% %s = %s", part, known)

    @rule(part=slices)
    def move_part(self, part: tuple[int, int]) -> None:
        """The other column of the primary key changes, which is a namespace too."""
        known = self.changed([])
        for row in self.chosen(part):
            del known[row.part, row.id]
            known[1 - row.part, row.id] = row._replace(part=1 - row.part)
        self.write("UPDATE item SET part = 1 - part WHERE id %% %s = %s", part, known)

    @rule(part=slices)
    def update_unused(self, part: tuple[int, int]) -> None:
        self.write("UPDATE item SET note = 'seen' WHERE id %% %s = %s", part, self.rows)

    @rule(part=slices)
    def delete(self, part: tuple[int, int]) -> None:
        gone = {(row.part, row.id) for row in self.chosen(part)}
        known = {pk: row for pk, row in self.rows.items() if pk not in gone}
        self.write("DELETE FROM item WHERE id %% %s = %s", part, known)

    @rule(at=st.sampled_from(AGES), g=st.sampled_from(GROUPS))
    def delete_front(self, at: int, g: int) -> None:
        """Whole buckets become empty."""
        known = {
            pk: row for pk, row in self.rows.items() if not (row.g == g and row.at is not None and row.at <= at)
        }  # fmt: skip
        self.write("DELETE FROM item WHERE g = %s AND at <= %s", [g, at], known)

    @precondition(lambda self: self.old is None)
    @rule(several=st.lists(bodies, max_size=3))
    def truncate(self, several: list[tuple[Any, ...]]) -> None:
        """TRUNCATE, and inserts after it in the same transaction."""
        was_open = self.is_open
        if not was_open:
            self.begin("READ COMMITTED")
        self.has_truncated = True
        self.write("TRUNCATE item", [], {})
        if several:
            self.insert_rows([self.new(body) for body in several])
        if not was_open:
            self.end("COMMIT")

    # Transactions

    @precondition(lambda self: not self.is_open)
    @rule(level=st.sampled_from(["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]))
    def begin(self, level: LiteralString) -> None:
        run(self.writer, sql.SQL("BEGIN ISOLATION LEVEL {}").format(sql.SQL(level)))
        self.saved = [(self.rows, False)]

    @precondition(lambda self: self.is_open)
    @rule()
    def savepoint(self) -> None:
        self._on_savepoint("SAVEPOINT {}", len(self.saved))
        self.saved.append((self.rows, self.has_truncated))

    @precondition(lambda self: len(self.saved) > 1)
    @rule()
    def rollback_to_savepoint(self) -> None:
        self.rows, self.has_truncated = self.saved.pop()
        self._on_savepoint("ROLLBACK TO SAVEPOINT {}", len(self.saved))

    @precondition(lambda self: len(self.saved) > 1)
    @rule()
    def release_savepoint(self) -> None:
        self.saved.pop()
        self._on_savepoint("RELEASE SAVEPOINT {}", len(self.saved))

    @precondition(lambda self: self.is_open)
    @rule(end=st.sampled_from(["COMMIT", "COMMIT", "ROLLBACK"]))
    def end(self, end: LiteralString) -> None:
        run(self.writer, end)
        (rows, _), *_ = self.saved
        self.saved = []
        if end == "ROLLBACK":
            self.rows, self.has_truncated = rows, False
        else:
            self.commit()

    # Maintenance, beside the open transaction

    @precondition(lambda self: not self.is_locked)
    @rule()
    def fold(self) -> None:
        self.tally.fold(self.engine)
        self.is_folded = True

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def fold_one(self, one: int) -> None:
        self.tally.fold(self.engine, only=[self.world.models[one].aggregate.name])

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def backfill(self, one: int) -> None:
        self.tally.backfill(self.engine, only=[self.world.models[one].aggregate.name], chunk_rows=CHUNK_ROWS)

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def begin_backfill(self, one: int) -> None:
        """It stays begun, with a chunk counted, until some later step goes on with it."""
        begin(self.engine, self.tally, [self.world.models[one].aggregate.name])

    @rule(one=st.integers(0, 5))
    def roll_back(self, one: int) -> None:
        """Whoever is in the table."""
        self.tally.rollback(self.engine, only=[self.world.models[one].aggregate.name])

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def resume(self, one: int) -> None:
        with suppress(NotKept):  # there is nothing that could be served
            (resumed,) = self.tally.resume(self.engine, only=[self.world.models[one].aggregate.name])
            assert resumed.serving == "kept"

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def audit(self, one: int) -> None:
        """A part of it, of one bucket; the next time the next."""
        name = self.world.models[one].aggregate.name
        assert audit_step(self.engine, "tally", name, budget_s=0).drifted == 0

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5))
    def damage_and_repair(self, one: int) -> None:
        name, observer = self.world.models[one].aggregate.name, self.world.observer
        damage_and_repair(cast(Any, observer.connection.driver_connection), self.engine, self.tally, name, "bucket")

    # Readers

    @precondition(lambda self: self.old is None and not self.is_locked)
    @rule()
    def take_snapshot(self) -> None:
        run(self.world.reader, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        run(self.world.reader, "SELECT FROM item")
        self.old = self.committed

    @precondition(lambda self: self.old is not None)
    @rule()
    def release_snapshot(self) -> None:
        run(self.world.reader, "COMMIT")
        self.old = None

    @precondition(lambda self: not self.is_locked)
    @rule(one=st.integers(0, 5), seed=seeds)
    def hold_a_cursor(self, one: int, seed: int) -> None:
        self.others.hold(self.world.models[one], self.committed, Random(seed))
        self.own.held = self.past.held = self.others.held = self.others.held[-3:]

    # What they are to answer

    @precondition(lambda self: self.is_open)
    @invariant()
    def own_writes_are_read(self) -> None:
        self.own.check(self.rows, self._random())

    @precondition(lambda self: not self.is_locked)
    @invariant()
    def others_read_what_is_committed(self) -> None:
        self.others.check(self.committed, self._random())

    @precondition(lambda self: self.old is not None)
    @invariant()
    def old_snapshot_stays_right(self) -> None:
        assert self.old is not None
        self.past.check(self.old, self._random())

    @precondition(lambda self: not self.is_locked)
    @invariant()
    def buckets_are_in_order(self) -> None:
        kept = "SELECT name FROM tally.aggregate WHERE phase = 'kept'"
        complete = set(self.world.observer.exec_driver_sql(kept).scalars())
        for model in self.world.models:
            rows = self.committed if self.is_folded and model.aggregate.name in complete else None
            check_buckets(self.world.observer, model, rows, 2 * buckets.ITEMS)

    def teardown(self) -> None:
        for connection in (self.world.writer, self.world.reader):
            with suppress(psycopg.Error):
                run(connection, "ROLLBACK")

    def _random(self) -> Random:
        """What is asked differs from step to step, and is the same when an example is repeated."""
        self.steps += 1
        return Random(f"{self.seed} {self.steps}")

    def _on_savepoint(self, statement: LiteralString, number: int) -> None:
        run(self.writer, sql.SQL(statement).format(sql.Identifier(f"s{number}")))
