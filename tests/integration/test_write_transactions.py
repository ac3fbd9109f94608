"""Transactions and TRUNCATE: savepoints, isolation levels, two-phase commit, and writers who wait for each other."""

from collections.abc import Callable, Iterator
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import URL, Engine

from tests.conftest import Connect
from tests.integration import scenario
from tests.integration.scenario import Refused, Scenario, Stage, declared
from tests.oracle import assert_exact
from tests.servers import Server
from tests.stepping import Session


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return scenario.template(server)


@pytest.fixture(params=[1, 1000], ids=["folded after each", "folded at the end"])
def stage(request: pytest.FixtureRequest, connect: Connect, database: URL) -> Iterator[Stage]:
    """The application's session; its folds run beside open transactions too."""
    with scenario.stage(connect, database, fold_every=request.param) as stage:
        yield stage


ROWS: LiteralString = "INSERT INTO item (place, kind, size) VALUES (1, 'k1', 9), (2, NULL, 8), (NULL, 'k2', NULL)"
MORE: LiteralString = "INSERT INTO item (place, kind, size) SELECT i % 3, 'k1', i FROM generate_series(1, 9) AS s (i)"
UPDATE: LiteralString = "UPDATE item SET size = size + 1, place = 1 WHERE id % 2 = 0"
WRITES_AFTER_TRUNCATE: LiteralString = (
    "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " INSERT INTO item (place, size) VALUES (NULL, 7); RETURN NULL; END $$;"
)

TRUNCATES = {
    "alone": Scenario(["TRUNCATE item", ROWS, "TRUNCATE item", "TRUNCATE item"]),
    "of an empty table": Scenario(["DELETE FROM item", "TRUNCATE item", ROWS, "DELETE FROM item"]),
    "with writes around it": Scenario(["BEGIN", MORE, UPDATE, "TRUNCATE item", ROWS, UPDATE, "COMMIT", MORE]),
    "twice in a transaction": Scenario(["BEGIN", MORE, "TRUNCATE item", MORE, "TRUNCATE item", ROWS, "COMMIT"]),
    "rolled back": Scenario(["BEGIN", "TRUNCATE item", ROWS, "ROLLBACK", UPDATE]),
    "RESTART IDENTITY": Scenario([MORE, "TRUNCATE item RESTART IDENTITY", ROWS, MORE]),
    "RESTART IDENTITY, rolled back": Scenario(["BEGIN", "TRUNCATE item RESTART IDENTITY", ROWS, "ROLLBACK", MORE]),
    "in a savepoint that is released": Scenario(
        ["BEGIN", MORE, "SAVEPOINT s", "TRUNCATE item", ROWS, "RELEASE SAVEPOINT s", MORE, "COMMIT", UPDATE]
    ),
    "in a savepoint that is rolled back": Scenario(
        ["BEGIN", MORE, "SAVEPOINT s", "TRUNCATE item", ROWS, "ROLLBACK TO SAVEPOINT s", UPDATE, ROWS, "COMMIT", MORE]
    ),
    "in savepoints, one inside the other": Scenario(
        [
            "BEGIN", "SAVEPOINT a", "TRUNCATE item", ROWS, "SAVEPOINT b", "TRUNCATE item", MORE,
            "ROLLBACK TO SAVEPOINT b", UPDATE, "RELEASE SAVEPOINT a", MORE, "COMMIT",
        ]
    ),
    "after a savepoint with a TRUNCATE was rolled back": Scenario(
        ["BEGIN", "SAVEPOINT a", "TRUNCATE item", "ROLLBACK TO SAVEPOINT a", MORE, "TRUNCATE item", ROWS, "COMMIT"]
    ),
    "of several tables": Scenario(["TRUNCATE place, item", ROWS]),
    "of another table": Scenario([MORE, "TRUNCATE place", UPDATE]),
    "CASCADE": Scenario(
        [
            Refused("TRUNCATE place", psycopg.errors.FeatureNotSupported),
            "TRUNCATE place CASCADE",
            "INSERT INTO place VALUES (1, 'p'), (2, 'p')",
            ROWS,
            "BEGIN",
            "TRUNCATE place RESTART IDENTITY CASCADE",
            "ROLLBACK",
        ],
        "ALTER TABLE item ADD FOREIGN KEY (place) REFERENCES place",
    ),
    # Once wrong: our marker, set by an AFTER trigger that fires later, made void what these have inserted.
    "before an AFTER trigger that writes": Scenario(
        ["TRUNCATE item", ROWS, "BEGIN", "TRUNCATE item", UPDATE, "COMMIT"],
        WRITES_AFTER_TRUNCATE + "CREATE TRIGGER own AFTER TRUNCATE ON item EXECUTE FUNCTION own()",
    ),
    "of another table, whose trigger writes to this one": Scenario(
        ["TRUNCATE place, item", ROWS, "TRUNCATE item, place"],
        WRITES_AFTER_TRUNCATE + "CREATE TRIGGER zz AFTER TRUNCATE ON place EXECUTE FUNCTION own()",
    ),
    "after an AFTER trigger that writes": Scenario(
        ["TRUNCATE item", ROWS, "TRUNCATE item"],
        WRITES_AFTER_TRUNCATE + "CREATE TRIGGER zz AFTER TRUNCATE ON item EXECUTE FUNCTION own()",
    ),
    "after BEFORE triggers that write": Scenario(
        ["TRUNCATE item", ROWS, "TRUNCATE place, item"],
        WRITES_AFTER_TRUNCATE + "CREATE TRIGGER own BEFORE TRUNCATE ON item EXECUTE FUNCTION own();"
        "CREATE TRIGGER zz BEFORE TRUNCATE ON item EXECUTE FUNCTION own()",
    ),
    "that a trigger refuses": Scenario(
        [Refused("TRUNCATE item", psycopg.errors.RaiseException), "BEGIN", ROWS, "SAVEPOINT s",
         Refused("TRUNCATE place, item", psycopg.errors.RaiseException), "ROLLBACK TO SAVEPOINT s", MORE, "COMMIT"],
        "CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$;"
        " CREATE TRIGGER zz AFTER TRUNCATE ON item EXECUTE FUNCTION own()",
    ),
    "in a function that catches an error": Scenario(
        [
            "DO $$ BEGIN INSERT INTO item (place, size) VALUES (1, 1); BEGIN TRUNCATE item;"
            " INSERT INTO item (place, size) VALUES (2, 2); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN"
            " INSERT INTO item (place, size) VALUES (3, 3); END; END $$",
            UPDATE,
        ]
    ),
    "prepared and committed": Scenario(
        ["BEGIN", MORE, "TRUNCATE item", ROWS, "PREPARE TRANSACTION 'truncates'", "COMMIT PREPARED 'truncates'", UPDATE]
    ),
    "prepared and rolled back": Scenario(
        ["BEGIN", "TRUNCATE item", ROWS, "PREPARE TRANSACTION 'truncates'", "ROLLBACK PREPARED 'truncates'", UPDATE]
    ),
}  # fmt: skip
LEVELS: tuple[LiteralString, ...] = ("REPEATABLE READ", "SERIALIZABLE")
for level in LEVELS:
    begin: LiteralString = "BEGIN ISOLATION LEVEL " + level
    TRUNCATES[f"at {level}"] = Scenario(
        [MORE, begin, MORE, "TRUNCATE item", ROWS, "SAVEPOINT s", "TRUNCATE item", "ROLLBACK TO SAVEPOINT s", UPDATE,
         "COMMIT", begin, "TRUNCATE item", ROWS, "ROLLBACK", MORE, begin, "TRUNCATE item", "COMMIT"]
    )  # fmt: skip

TRANSACTIONS = {
    "rolled back": Scenario(["BEGIN", ROWS, UPDATE, "DELETE FROM item WHERE size > 3", "ROLLBACK"], changes=False),
    "savepoints": Scenario(
        [
            "BEGIN", ROWS, "SAVEPOINT a", UPDATE, "SAVEPOINT b", "DELETE FROM item WHERE size > 3",
            "ROLLBACK TO SAVEPOINT b", MORE, "RELEASE SAVEPOINT a", "SAVEPOINT c", "DELETE FROM item",
            "ROLLBACK TO SAVEPOINT c", UPDATE, "COMMIT",
        ]
    ),
    "error in a savepoint": Scenario(
        [
            "BEGIN", ROWS, "SAVEPOINT a", UPDATE,
            Refused("INSERT INTO item (id, size) VALUES (31, 1), (1, 1)", psycopg.errors.UniqueViolation),
            "ROLLBACK TO SAVEPOINT a", MORE, "COMMIT",
        ]
    ),
    "error without one": Scenario(
        ["BEGIN", ROWS, Refused("UPDATE item SET size = 1 / 0", psycopg.errors.DivisionByZero), "COMMIT"], changes=False
    ),
    "exceptions in plpgsql": Scenario(
        [
            "DO $$ BEGIN FOR i IN 1..6 LOOP BEGIN INSERT INTO item (place, size) VALUES (i % 3, i);"
            " UPDATE item SET size = size + 1 WHERE id = i; IF i % 2 = 0 THEN DELETE FROM item WHERE id = i + 6;"
            " PERFORM 1 / (i - 4); END IF; EXCEPTION WHEN division_by_zero THEN DELETE FROM item WHERE id = 20; END;"
            " END LOOP; END $$",
            UPDATE,
        ]
    ),
    "procedure that commits": Scenario(
        ["CALL work()", UPDATE],
        "CREATE PROCEDURE work() LANGUAGE plpgsql AS $$ BEGIN FOR i IN 1..6 LOOP"
        " INSERT INTO item (place, size) VALUES (i, i); UPDATE item SET size = size + 1 WHERE place = i;"
        " IF i % 2 = 0 THEN COMMIT; ELSE ROLLBACK; END IF; END LOOP; END $$",
    ),
    "function called once for each row": Scenario(
        ["SELECT moved(id) FROM item WHERE id < 9", "UPDATE item SET size = moved(id + 1) WHERE id IN (10, 12)"],
        "CREATE FUNCTION moved(which bigint) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN"
        " UPDATE item SET place = place % 3 + 1 WHERE id = which; INSERT INTO item (place, size) VALUES (1, which);"
        " RETURN which; END $$",
    ),
    "prepared and committed": Scenario(
        ["BEGIN", ROWS, UPDATE, "PREPARE TRANSACTION 'writes'", MORE, "COMMIT PREPARED 'writes'"]
    ),
    "prepared and rolled back": Scenario(
        ["BEGIN", ROWS, UPDATE, "PREPARE TRANSACTION 'writes'", MORE, "ROLLBACK PREPARED 'writes'"]
    ),
    "at SERIALIZABLE": Scenario(["BEGIN ISOLATION LEVEL SERIALIZABLE", ROWS, UPDATE, MORE, "COMMIT"]),
    "AND CHAIN": Scenario(["BEGIN", ROWS, "COMMIT AND CHAIN", UPDATE, "ROLLBACK AND CHAIN", MORE, "COMMIT"]),
}  # fmt: skip
SCENARIOS = {
    **{f"TRUNCATE {name}": script for name, script in TRUNCATES.items()},
    **{f"transaction {name}": script for name, script in TRANSACTIONS.items()},
}


@pytest.mark.parametrize("script", SCENARIOS.values(), ids=SCENARIOS)
def test_transactions(stage: Stage, script: Scenario) -> None:
    stage.play(script)


def test_fold_beside_an_open_truncate(connect: Connect, engine: Engine) -> None:
    """The fold of an aggregate without extremes reads no source, so it meets the uncommitted marker of a TRUNCATE."""
    app = connect(autocommit=True)
    tally = declared()
    tally.grouped("plainly", "SELECT place, count(*) AS n, count(DISTINCT kind) AS d FROM public.item GROUP BY place")
    tally.install(engine)
    tally.backfill(engine)
    for end in ("ROLLBACK", "COMMIT"):
        app.execute(MORE)
        app.execute("BEGIN")
        for write in (UPDATE, "TRUNCATE item", ROWS, UPDATE):
            app.execute(write)
            tally.fold(engine, only=["plainly"])
        app.execute(end)
        assert_exact(engine, tally)
        app.execute(MORE)
        assert_exact(engine, tally)
        tally.fold(engine)
        assert_exact(engine, tally)


SECOND: dict[str, tuple[LiteralString, int]] = {
    "counts up": ("UPDATE item SET size = size + 100 WHERE id = 1 RETURNING size", 1),
    "no longer matches": ("UPDATE item SET size = 50 WHERE place = 1 AND id = 1 RETURNING size", 0),
    "deletes": ("DELETE FROM item WHERE id = 1 RETURNING size", 1),
    "takes what it joins": (
        "UPDATE item SET kind = place.name FROM place WHERE place.id = item.place + 1 AND item.id = 1 RETURNING 1", 0
    ),
    "upserts": (
        "INSERT INTO item (id, size) VALUES (1, 7) ON CONFLICT (id) DO UPDATE SET size = item.size + 7 RETURNING id", 1
    ),
    "merges": ("MERGE INTO item USING place ON item.id = place.id AND place.id = 1"
               " WHEN MATCHED AND item.place = 2 THEN DELETE WHEN MATCHED THEN UPDATE SET size = 90", 0),
}  # fmt: skip


@pytest.mark.parametrize(("second", "written"), SECOND.values(), ids=SECOND)
@pytest.mark.parametrize(
    "first", ["UPDATE item SET place = 2, size = 33 WHERE id = 1", "DELETE FROM item WHERE id = 1"]
)
def test_second_writer_waits_and_looks_again(
    session: Callable[[], Session], engine: Engine, first: LiteralString, second: LiteralString, written: int
) -> None:
    """At READ COMMITTED it goes on with the row as the first has left it."""
    one, two = session(), session()
    tally = declared()
    one.run("BEGIN").result()
    one.run(first).result()
    waiting = two.run(second)
    assert waiting.waiting
    assert_exact(engine, tally)
    one.run("COMMIT").result()
    rows = waiting.result()
    if first.startswith("UPDATE"):
        assert len(rows) == written
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)
    two.run(UPDATE).result()
    assert_exact(engine, tally)


def test_second_writer_goes_on_when_the_first_rolls_back(session: Callable[[], Session], engine: Engine) -> None:
    one, two = session(), session()
    tally = declared()
    one.run("BEGIN").result()
    one.run("UPDATE item SET place = 2, size = 33 WHERE id = 1").result()
    waiting = two.run("UPDATE item SET size = size + 100 WHERE place = 1")
    assert waiting.waiting
    one.run("ROLLBACK").result()
    waiting.result()
    assert_exact(engine, tally)
    tally.fold(engine)
    assert_exact(engine, tally)


def test_truncate_waits_for_a_writer(session: Callable[[], Session], engine: Engine) -> None:
    """The marker comes after the deltas of everyone who has written before, and before everyone's after it."""
    one, two, three = session(), session(), session()
    tally = declared()
    for number in range(2):
        one.run("BEGIN").result()
        one.run(MORE).result()
        truncate = two.run("TRUNCATE item")
        assert truncate.waiting
        insert = three.run(ROWS)
        assert insert.waiting
        one.run(UPDATE).result()
        one.run("COMMIT" if number else "ROLLBACK").result()
        truncate.result()
        insert.result()
        assert_exact(engine, tally)
        tally.fold(engine)
        assert_exact(engine, tally)
