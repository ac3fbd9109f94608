"""What an application's own triggers, rules, views and foreign keys make of a write, its answer stays exact."""

from collections.abc import Iterator
from typing import LiteralString

import psycopg
import pytest
from sqlalchemy import URL

from tests.conftest import Connect
from tests.integration import scenario
from tests.integration.scenario import Refused, Scenario, Stage
from tests.servers import Server


@pytest.fixture(scope="session")
def template(server: Server) -> str:
    return scenario.template(server)


@pytest.fixture
def stage(connect: Connect, database: URL) -> Iterator[Stage]:
    """The application's session, with a fold after every second statement."""
    with scenario.stage(connect, database, fold_every=2) as stage:
        yield stage


def trigger(timing: LiteralString, body: LiteralString, name: LiteralString = "own") -> LiteralString:
    """A trigger of the application's on `item`; `timing` from BEFORE or AFTER to FOR EACH …, WHEN (…)."""
    function: LiteralString = "CREATE FUNCTION " + name + "() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body
    first, _, rest = timing.partition(" FOR EACH ")
    return (
        function + " END $$; CREATE TRIGGER " + name + " " + first + " ON item FOR EACH " + rest
        + " EXECUTE FUNCTION " + name + "(); "
    )  # fmt: skip


WRITES: tuple[LiteralString, ...] = (
    "INSERT INTO item (id, place, kind, size) VALUES (300, 1, 'k1', 3), (301, 2, NULL, 4), (302, NULL, 'k2', NULL)",
    "UPDATE item SET size = size + 1 WHERE id % 2 = 0",
    "UPDATE item SET place = 3 WHERE place = 1",
    "INSERT INTO item (id, place, size) VALUES (1, 5, 9), (303, 5, 9)"
    " ON CONFLICT (id) DO UPDATE SET size = excluded.size",
    "DELETE FROM item WHERE size > 5 OR id = 302",
    "MERGE INTO item USING generate_series(10, 26) AS s (i) ON item.id = i WHEN MATCHED AND i % 3 = 0 THEN DELETE"
    " WHEN MATCHED THEN UPDATE SET size = 2 WHEN NOT MATCHED THEN INSERT (id, place, size) VALUES (i, 4, i)",
)

TRIGGERS = {
    "changes a used column that the statement does not name": Scenario(
        (*WRITES, "UPDATE item SET note = 'x' WHERE id < 20"),
        trigger("BEFORE INSERT OR UPDATE FOR EACH ROW", "NEW.size := coalesce(NEW.size, 0) + 1; RETURN NEW;"),
    ),
    "moves the row to another group": Scenario(
        WRITES, trigger("BEFORE INSERT OR UPDATE FOR EACH ROW", "NEW.place := NEW.place % 3 + 2; RETURN NEW;")
    ),
    "suppresses rows": Scenario(
        WRITES,
        trigger(
            "BEFORE INSERT OR UPDATE OR DELETE FOR EACH ROW",
            "IF coalesce(NEW.id, OLD.id) % 3 = 0 THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD);",
        ),
    ),
    "turns deletes into marks": Scenario(
        WRITES,
        trigger("BEFORE DELETE FOR EACH ROW", "UPDATE item SET kind = 'gone' WHERE id = OLD.id; RETURN NULL;"),
    ),
    "undoes an update": Scenario(
        ["UPDATE item SET size = 7, place = 1"],
        trigger("BEFORE UPDATE FOR EACH ROW", "RETURN OLD;"),
        changes=False,
    ),
    "inserts before the statement": Scenario(
        ["UPDATE item SET size = 0 WHERE size = 1", "DELETE FROM item WHERE place = 2"],
        trigger(
            "BEFORE UPDATE OR DELETE FOR EACH STATEMENT",
            "INSERT INTO item (place, size) VALUES (2, 1); RETURN NULL;",
        ),
    ),
    "changes the row again after it": Scenario(
        WRITES,
        trigger(
            "AFTER INSERT OR UPDATE FOR EACH ROW WHEN (NEW.size % 4 = 3)",
            "UPDATE item SET size = size + 1, place = 5 WHERE id = NEW.id; RETURN NULL;",
        ),
    ),
    "inserts another row for each": Scenario(
        WRITES,
        trigger(
            "AFTER INSERT FOR EACH ROW WHEN (NEW.kind IS DISTINCT FROM 'copy')",
            "INSERT INTO item (place, kind, size) VALUES (NEW.place, 'copy', NEW.size); RETURN NULL;",
        ),
    ),
    "deletes what was inserted": Scenario(
        WRITES,
        trigger("AFTER INSERT FOR EACH ROW WHEN (NEW.size > 3)", "DELETE FROM item WHERE id = NEW.id; RETURN NULL;"),
    ),
    "inserts again what was deleted": Scenario(
        WRITES,
        trigger(
            "AFTER DELETE FOR EACH ROW WHEN (OLD.size % 2 = 0)",
            "INSERT INTO item (id, place, size) VALUES (OLD.id, 4, OLD.size - 1); RETURN NULL;",
        ),
    ),
    "writes after the statement, and again after that": Scenario(
        WRITES,
        trigger(
            "AFTER INSERT FOR EACH STATEMENT",
            "IF pg_trigger_depth() < 4 THEN INSERT INTO item (place, size) SELECT 4, pg_trigger_depth();"
            " UPDATE item SET size = size + 1 WHERE place = 4; END IF; RETURN NULL;",
        ),
    ),
    "fires before ours and after ours, by name": Scenario(
        WRITES,
        trigger(
            "AFTER UPDATE FOR EACH ROW WHEN (pg_trigger_depth() = 0)",
            "UPDATE item SET size = size + 1 WHERE id = NEW.id; RETURN NULL;", "a_first",
        )
        + trigger(
            "AFTER UPDATE FOR EACH ROW WHEN (pg_trigger_depth() = 0)",
            "UPDATE item SET place = 2 WHERE id = NEW.id; RETURN NULL;", "z_last",
        ),
    ),
    "has transition tables of its own": Scenario(
        WRITES,
        trigger(
            "AFTER UPDATE REFERENCING OLD TABLE AS was NEW TABLE AS now FOR EACH STATEMENT",
            "IF pg_trigger_depth() = 1 THEN UPDATE item SET size = item.size + 10 FROM was JOIN now USING (id)"
            " WHERE was.size <> now.size AND item.id = was.id; END IF; RETURN NULL;",
        )
        .replace(" ON item FOR EACH", " FOR EACH")
        .replace("AFTER UPDATE REF", "AFTER UPDATE ON item REF"),
    ),
    "runs at commit": Scenario(
        (
            *WRITES,
            "BEGIN",
            "INSERT INTO item (id, place, size) VALUES (310, 1, 1)",
            "UPDATE item SET size = 4 WHERE id = 310",
            "SET CONSTRAINTS ALL IMMEDIATE",
            "DELETE FROM item WHERE id = 310",
            "COMMIT",
        ),
        trigger(
            "AFTER INSERT OR UPDATE FOR EACH ROW",
            "IF NEW.note IS NULL THEN UPDATE item SET size = size + 1, note = 'seen' WHERE id = NEW.id;"
            " INSERT INTO item (place, size, note) VALUES (1, 2, 'seen'); END IF; RETURN NULL;",
        )
        .replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER")
        .replace("FOR EACH ROW", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"),
    ),
    "refuses at commit": Scenario(
        [
            "BEGIN",
            "UPDATE item SET size = 1000 WHERE id = 4",
            Refused("COMMIT", psycopg.errors.RaiseException),
            Refused("UPDATE item SET size = 1000 WHERE id = 5", psycopg.errors.RaiseException),
        ],
        trigger("AFTER UPDATE FOR EACH ROW WHEN (NEW.size > 900)", "RAISE 'too much';")
        .replace("CREATE TRIGGER", "CREATE CONSTRAINT TRIGGER")
        .replace("FOR EACH ROW", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"),
        changes=False,
    ),
    "refuses some rows": Scenario(
        (*WRITES[:2], Refused("UPDATE item SET size = size - 1", psycopg.errors.RaiseException), *WRITES[2:]),
        trigger("AFTER UPDATE FOR EACH ROW WHEN (NEW.size < 0)", "RAISE 'too little';"),
    ),
    "swallows what fails": Scenario(
        WRITES,
        trigger(
            "AFTER INSERT FOR EACH ROW WHEN (pg_trigger_depth() = 0)",
            "INSERT INTO item (place, size) VALUES (1, 30); BEGIN INSERT INTO item (place, size) VALUES (1, 31);"
            " INSERT INTO item (id) VALUES (NEW.id); EXCEPTION WHEN unique_violation THEN UPDATE item SET size = 32"
            " WHERE id = NEW.id; END; RETURN NULL;",
        ),
    ),
}  # fmt: skip

VIEWS_AND_RULES = {
    "updatable view": Scenario(
        [
            "INSERT INTO sized (id, place, amount) VALUES (400, 1, 5), (401, NULL, 1)",
            "UPDATE sized SET amount = amount + 1, place = 2 WHERE place = 1",
            "INSERT INTO sized (id, place, amount) VALUES (400, 3, 8) ON CONFLICT (id) DO UPDATE SET place = 4",
            "DELETE FROM sized WHERE amount = 3",
        ],
        "CREATE VIEW sized AS SELECT id, place, size AS amount FROM item WHERE size > 2",
    ),
    "WITH CHECK OPTION": Scenario(
        [
            "INSERT INTO sized (id, place, size) VALUES (400, 1, 5)",
            Refused("UPDATE sized SET size = size - 3", psycopg.errors.WithCheckOptionViolation),
            Refused("INSERT INTO sized (place, size) VALUES (1, 9), (1, 1)", psycopg.errors.WithCheckOptionViolation),
            "UPDATE sized SET size = size + 1",
        ],
        "CREATE VIEW sized AS SELECT id, place, size FROM item WHERE size > 2 WITH CASCADED CHECK OPTION",
    ),
    "INSTEAD OF": Scenario(
        [
            "INSERT INTO placed VALUES (410, 'p1', 5), (411, 'p4', 6)",
            "UPDATE placed SET name = 'p2', size = size + 1 WHERE name = 'p1'",
            "DELETE FROM placed WHERE name = 'p3'",
        ],
        "CREATE VIEW placed AS SELECT item.id, place.name, size FROM item JOIN place ON place.id = item.place;"
        "CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF TG_OP <> 'INSERT' THEN DELETE FROM item WHERE id = OLD.id; END IF;"
        " IF TG_OP <> 'DELETE' THEN INSERT INTO item (id, place, size)"
        " SELECT NEW.id, id, NEW.size FROM place WHERE name = NEW.name; RETURN NEW; END IF; RETURN OLD; END $$;"
        "CREATE TRIGGER instead INSTEAD OF INSERT OR UPDATE OR DELETE ON placed"
        " FOR EACH ROW EXECUTE FUNCTION instead()",
    ),
    "rule DO ALSO": Scenario(
        ["UPDATE item SET size = size + 1 WHERE id % 2 = 0", "UPDATE item SET place = 4 WHERE place = 3"],
        "CREATE RULE more AS ON UPDATE TO item DO ALSO"
        " INSERT INTO item (place, kind, size) VALUES (OLD.place, 'was', OLD.size)",
    ),
    "rule DO INSTEAD": Scenario(
        ["DELETE FROM item WHERE size > 3", "DELETE FROM item"],
        "CREATE RULE soft AS ON DELETE TO item DO INSTEAD UPDATE item SET kind = 'gone', size = 0 WHERE id = OLD.id",
    ),
    "rule DO INSTEAD NOTHING": Scenario(
        ["INSERT INTO item (id, place, size) VALUES (420, 1, 1), (421, 1, 50)"],
        "CREATE RULE small AS ON INSERT TO item WHERE NEW.size > 20 DO INSTEAD NOTHING",
    ),
    "rule on a view": Scenario(
        ["INSERT INTO counted VALUES (3, 5), (4, 2)"],
        "CREATE VIEW counted AS SELECT place, count(*) AS n FROM item GROUP BY place;"
        "CREATE RULE put AS ON INSERT TO counted DO INSTEAD (INSERT INTO item (place, size) VALUES (NEW.place, NEW.n);"
        " UPDATE item SET size = size + 1 WHERE place = NEW.place)",
    ),
}  # fmt: skip

DELETE_PLACES: tuple[LiteralString, ...] = (
    "DELETE FROM place WHERE id IN (2, 3)", "UPDATE item SET size = size + 1 WHERE place = 1", "DELETE FROM place"
)  # fmt: skip
MOVE_PLACES: tuple[LiteralString, ...] = (
    "UPDATE place SET id = id + 10 WHERE id > 2", "UPDATE place SET name = 'x'", "UPDATE place SET id = - id"
)  # fmt: skip
PLACES: LiteralString = "ALTER TABLE item ADD FOREIGN KEY (place) REFERENCES place "
PARENTS: LiteralString = "ALTER TABLE item ADD FOREIGN KEY (parent) REFERENCES item "
PUTS_BACK = trigger("AFTER DELETE FOR EACH ROW", "INSERT INTO item (place, size) VALUES (4, OLD.size); RETURN NULL;")
GROWS = trigger("BEFORE UPDATE FOR EACH ROW", "NEW.size := NEW.size + 1; RETURN NEW;", "other")
# The writes that follow every script put rows into place 2.
RETURNED: LiteralString = "INSERT INTO place VALUES (1, 'p'), (2, 'p') ON CONFLICT DO NOTHING"
FOREIGN_KEYS = {
    "ON DELETE CASCADE": Scenario((*DELETE_PLACES, RETURNED), PLACES + "ON DELETE CASCADE"),
    "ON DELETE SET NULL": Scenario((*DELETE_PLACES, RETURNED), PLACES + "ON DELETE SET NULL"),
    "ON DELETE SET DEFAULT": Scenario(
        ["DELETE FROM place WHERE id IN (3, 4)", Refused("DELETE FROM place", psycopg.errors.ForeignKeyViolation)],
        PLACES + "ON DELETE SET DEFAULT",
    ),
    "ON UPDATE CASCADE": Scenario((*MOVE_PLACES, RETURNED), PLACES + "ON UPDATE CASCADE"),
    "ON UPDATE SET NULL": Scenario((*MOVE_PLACES, RETURNED), PLACES + "ON UPDATE SET NULL"),
    "ON UPDATE SET DEFAULT": Scenario(
        ["UPDATE place SET id = id + 10 WHERE id IN (3, 4)"], PLACES + "ON UPDATE SET DEFAULT"
    ),
    "NO ACTION": Scenario(
        [Refused("DELETE FROM place", psycopg.errors.ForeignKeyViolation), "DELETE FROM item WHERE place = 2",
         "DELETE FROM place WHERE id = 2", RETURNED],
        PLACES,
    ),
    "deferred": Scenario(
        [
            "BEGIN",
            "INSERT INTO item (id, place, size) VALUES (500, 77, 1)",
            "UPDATE item SET place = 78 WHERE id = 500",
            "INSERT INTO place VALUES (78, 'late')",
            "DELETE FROM place WHERE id = 3",
            "DELETE FROM item WHERE place = 3",
            "COMMIT",
            "BEGIN",
            "INSERT INTO item (place, size) VALUES (79, 5)",
            Refused("COMMIT", psycopg.errors.ForeignKeyViolation),
        ],
        PLACES + "DEFERRABLE INITIALLY DEFERRED",
    ),
    "to itself, CASCADE": Scenario(
        ["DELETE FROM item WHERE id = 3", "DELETE FROM item WHERE id IN (2, 4, 9)", "DELETE FROM item WHERE id < 5"],
        PARENTS + "ON DELETE CASCADE",
    ),
    "to itself, SET NULL": Scenario(
        [
            "DELETE FROM item WHERE id IN (1, 3)",
            "WITH d AS (DELETE FROM item WHERE id = 4) DELETE FROM item WHERE id = 5",
        ],
        PARENTS + "ON DELETE SET NULL",
    ),
    "to itself, ON UPDATE CASCADE": Scenario(
        ["UPDATE item SET id = id + 100 WHERE id % 2 = 1", "DELETE FROM item WHERE id = 103"],
        PARENTS + "ON UPDATE CASCADE ON DELETE CASCADE",
    ),
    "to itself and to another": Scenario(
        ["DELETE FROM place WHERE id = 2", "DELETE FROM place WHERE id IN (1, 3)", RETURNED],
        PLACES + "ON DELETE CASCADE; " + PARENTS + "ON DELETE CASCADE",
    ),
    "cascades that meet the application's triggers": Scenario(
        [
            "DELETE FROM place WHERE id = 2",
            "UPDATE place SET id = 13 WHERE id = 3",
            "DELETE FROM place WHERE id IN (1, 13)",
            RETURNED,
        ],
        "; ".join([PLACES + "ON DELETE CASCADE ON UPDATE CASCADE", PARENTS + "ON DELETE SET NULL", PUTS_BACK, GROWS]),
    ),
    "unique, checked at the end": Scenario(
        [
            "UPDATE item SET seat = 25 - seat",
            "BEGIN",
            "UPDATE item SET seat = 23, size = 5 WHERE id = 1",
            "UPDATE item SET seat = 24, place = 5 WHERE id = 2",
            "UPDATE item SET seat = seat + 100",
            "COMMIT",
            "BEGIN",
            "UPDATE item SET seat = 9, size = 99",
            Refused("COMMIT", psycopg.errors.UniqueViolation),
        ],
        "ALTER TABLE item ADD UNIQUE (seat) DEFERRABLE INITIALLY DEFERRED",
    ),
    "exclusion, checked at the end": Scenario(
        ["UPDATE item SET seat = seat + 1, size = size + 1",
         Refused("INSERT INTO item (seat, size) VALUES (5, 5), (5, 6)", psycopg.errors.ExclusionViolation)],
        "ALTER TABLE item ADD EXCLUDE (seat WITH =) DEFERRABLE INITIALLY IMMEDIATE",
    ),
    "checks and NOT NULL": Scenario(
        [Refused("UPDATE item SET size = size - 3", psycopg.errors.CheckViolation),
         Refused("INSERT INTO item (kind, size) VALUES ('k', 1), (NULL, 1)", psycopg.errors.NotNullViolation),
         "UPDATE item SET kind = 'k', size = 3"],
        "ALTER TABLE item ADD CHECK (size >= 0); UPDATE item SET kind = 'k3' WHERE kind IS NULL;"
        "ALTER TABLE item ALTER kind SET NOT NULL",
    ),
}  # fmt: skip

SCENARIOS = {
    **{f"trigger {name}": script for name, script in TRIGGERS.items()},
    **VIEWS_AND_RULES,
    **{f"foreign key {name}": script for name, script in FOREIGN_KEYS.items()},
}


@pytest.mark.parametrize("script", SCENARIOS.values(), ids=SCENARIOS)
def test_effects(stage: Stage, script: Scenario) -> None:
    stage.play(script)
