"""What status, doctor and install tell of counters and mend: sizes, missing grants, a renamed schema, plans."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError

from tallystick import Counter, Tally
from tallystick.maintain.doctor import Finding

FUNCTIONS = (
    '"tally"."counter_add", "tally"."counter_add_many", "tally"."counter_set", "tally"."counter_rebalance",'
    ' "tally"."counter_estimate"'
)


@pytest.fixture
def tally(engine: Engine) -> Tally:
    tally = Tally()
    tally.counter("clicks", shards=4)
    tally.counter("likes", shards=2)
    tally.install(engine)
    return tally


def execute(engine: Engine, *statements: Any) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement) if isinstance(statement, str) else statement)


def findings(engine: Engine, tally: Tally) -> list[Finding]:
    return tally.doctor(engine)


def test_status_counts_keys_and_fresh_rows(engine: Engine, tally: Tally) -> None:
    clicks, likes = tally.counters["clicks"], tally.counters["likes"]
    keys = ["", "A", "a", "ab", "b", "ä", "日本", "z" * 2000]
    execute(engine, *(clicks.set(key, 40) for key in keys), likes.add("only"), likes.add("z"))
    found = {each.name: (each.groups, each.backlog) for each in tally.status(engine)}
    assert found == {"clicks": (len(keys), 4 * len(keys)), "likes": (2, 2)}
    tally.fold(engine)
    execute(engine, clicks.reset("a"), clicks.add("c"))
    found = {each.name: (each.groups, each.backlog) for each in tally.status(engine)}
    assert found == {"clicks": (len(keys), 1), "likes": (2, 0)}
    tally.uninstall(engine, only=["clicks"])
    tally.install(engine)
    assert tally.status(engine)[0].groups == 0


def test_doctor_where_nothing_is_granted(engine: Engine, tally: Tally, make_role: Callable[[], str]) -> None:
    make_role()
    assert findings(engine, tally) == []


def test_doctor_names_the_grants_that_an_application_lacks(
    engine: Engine, tally: Tally, make_role: Callable[[], str]
) -> None:
    app, reader = make_role(), make_role()

    def remedies() -> list[tuple[str, str]]:
        found = findings(engine, tally)
        assert {(each.level, each.subject) for each in found} <= {("advice", "tally")}
        return [(each.what, each.remedy) for each in found]

    execute(engine, f"GRANT EXECUTE ON FUNCTION tally.counter_add TO {app}")
    unusable, unreadable = remedies()
    assert unusable == (
        f"{app} was granted the use of counters and may not use the schema",
        f'GRANT USAGE ON SCHEMA "tally" TO "{app}"',
    )
    assert unreadable == (
        f"{app} may add to counters and read none of them",
        f'GRANT SELECT ON "tally"."clicks", "tally"."likes" TO "{app}"',
    )
    execute(engine, unusable[1])
    assert remedies() == [unreadable]
    execute(engine, f"GRANT SELECT ON tally.likes TO {app}")
    assert remedies() == []
    execute(engine, f"GRANT USAGE ON SCHEMA tally TO {reader}", f"GRANT SELECT ON tally.likes TO {reader}")
    assert remedies() == []  # somebody adds; others may only read
    execute(engine, f"REVOKE EXECUTE ON FUNCTION tally.counter_add FROM {app}")
    expected = [
        (
            f"{role} may read counters, and no role beside the owner may add to them",
            f'GRANT EXECUTE ON FUNCTION {FUNCTIONS} TO "{role}"',
        )
        for role in sorted([app, reader])
    ]
    assert remedies() == expected
    execute(engine, expected[0][1])
    assert remedies() == []


def test_doctor_knows_grants_to_public_and_by_membership(
    engine: Engine, tally: Tally, make_role: Callable[[], str]
) -> None:
    app, group = make_role(), make_role()
    execute(
        engine, f"GRANT {group} TO {app}", f"GRANT EXECUTE ON FUNCTION tally.counter_add TO {app}",
        f"GRANT USAGE ON SCHEMA tally TO {group}", f"GRANT SELECT (key, count) ON tally.clicks TO {group}",
    )  # fmt: skip
    assert findings(engine, tally) == []
    execute(
        engine, f"REVOKE {group} FROM {app}", "GRANT USAGE ON SCHEMA tally TO PUBLIC",
        "GRANT SELECT ON tally.clicks TO PUBLIC",
    )  # fmt: skip
    assert findings(engine, tally) == []


@pytest.mark.parametrize("schema", ["x", "tally_2", "ally", 'odd "one"'])
def test_a_renamed_schema_is_found_and_mended_by_install(
    engine: Engine, tally: Tally, make_role: Callable[[], str], schema: str
) -> None:
    role = make_role()
    quoted = '"' + schema.replace('"', '""') + '"'
    execute(
        engine, tally.counters["clicks"].add("k", 3), f"GRANT EXECUTE ON FUNCTION tally.counter_add TO {role}",
        f"GRANT USAGE ON SCHEMA tally TO {role}", f"GRANT SELECT ON tally.clicks TO {role}",
        f"ALTER SCHEMA tally RENAME TO {quoted}",
    )  # fmt: skip
    renamed = Tally(schema=schema)
    clicks = renamed.counter("clicks", shards=4)
    renamed.counter("likes", shards=2)
    with pytest.raises(DBAPIError):
        execute(engine, clicks.add("k"))
    [finding] = findings(engine, renamed)
    assert (finding.level, finding.subject, finding.remedy) == ("error", schema, "tally install clicks")
    assert renamed.install(engine, only=["clicks"]) == ["clicks"]
    assert renamed.install(engine) == []
    assert findings(engine, renamed) == []
    with engine.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {role}"))  # what was granted stays
        connection.execute(clicks.add("k"))
        assert connection.scalar(select(clicks.count("k"))) == 4
        connection.execute(text("RESET ROLE"))
        for statement in (clicks.set("k", 9), clicks.rebalance("k"), clicks.add_many({"k": 1})):
            connection.execute(statement)
        assert connection.scalar(select(clicks.estimate("k", shards_read=4))) == 10
    assert [each.aggregate for each in renamed.fold(engine)] == ["clicks", "likes"]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_an_add_looks_at_rows_of_its_key_alone(engine: Engine, tally: Tally, level: str) -> None:
    """Beside a key of many rows, which an estimate takes for usual, PostgreSQL may prefer to walk over the table."""
    clicks: Counter = tally.counters["clicks"]
    fill = (
        "INSERT INTO tally.counter_shard SELECT id, 'hot', i % 4, 1 FROM tally.counter, generate_series(1, 40000) AS i"
        " WHERE name = 'clicks'"
    )
    execute(engine, fill, clicks.add("k"))
    execute(engine, "ANALYZE tally.counter_shard")
    with engine.connect().execution_options(isolation_level=level) as connection:
        read = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relid = 'tally.counter_shard'::regclass"
        for _ in range(12):
            connection.execute(clicks.add("k"))
        assert connection.scalar(text(read)) == 0
        assert connection.scalar(select(clicks.count("k"))) == 13
