"""Every operation of a free-standing counter, over real servers."""

from collections.abc import Callable
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from tallystick import Counter, DeclarationError, InstallError, NotInstalled, Tally, TallyError, UsageError, direct_of

BIGGEST = 2**63 - 1
holder = Table("holder", MetaData(), Column("id", Integer, primary_key=True), Column("token", Text),
               Column("balance", Integer))  # fmt: skip


class Base(DeclarativeBase):
    """Mapped classes of this module."""


class Holder(Base):
    __tablename__ = "holder"
    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str | None]


@pytest.fixture
def tally(engine: Engine) -> Tally:
    tally = Tally()
    tally.counter("clicks", shards=4, shards_for={"hot": 7})
    tally.counter("exact", shards=3, numeric=True)
    assert tally.install(engine) == ["clicks", "exact"]
    assert tally.install(engine) == []
    return tally


@pytest.fixture
def clicks(tally: Tally) -> Counter:
    return tally.counters["clicks"]


def rows(connection: Connection, key: str = "k", counter: str = "clicks") -> list[int]:
    found = connection.execute(
        text(
            "SELECT value FROM tally.counter_shard AS s JOIN tally.counter AS c ON c.id = s.counter"
            " WHERE c.name = :counter AND key = :key ORDER BY shard, value DESC"
        ),
        {"key": key, "counter": counter},
    )
    return [value for (value,) in found]


def count(engine: Engine, counter: Counter, key: str = "k") -> int:
    with engine.connect() as connection:
        found = connection.scalar(select(counter.count(key)))
        assert isinstance(found, int)
        return found


def sqlstate(error: DBAPIError) -> str | None:
    assert isinstance(error.orig, psycopg.Error)
    return error.orig.sqlstate


def test_adds_in_the_callers_transaction(engine: Engine, clicks: Counter) -> None:
    with engine.connect() as connection:
        for statement in (
            clicks.add("k"), clicks.add("k", 10), clicks.subtract("k", 3), clicks.inc("k"), clicks.dec("k"),
            clicks.subtract("k"), clicks.add_many({"k": 5, "b": -2, "a": 1}), clicks.add_many({}),
        ):  # fmt: skip
            connection.execute(statement)
        assert connection.scalar(select(clicks.count("k"))) == 12
        assert rows(connection) == [12]  # a transaction finds its own row again
        assert count(engine, clicks) == 0
        connection.rollback()
        assert connection.scalar(select(clicks.count("k"))) == 0
        connection.execute(clicks.add_many({"k": 5, "b": -2, "a": 1}))
        connection.commit()
    with engine.connect() as connection:
        assert connection.execute(clicks.counts(["b", "unknown", "k", "b"])).all() == [
            ("b", -2), ("unknown", 0), ("k", 5), ("b", -2),
        ]  # fmt: skip
        assert connection.execute(clicks.counts([])).all() == []
        assert connection.scalars(clicks.keys()).all() == ["a", "b", "k"]
        assert connection.execute(select(clicks.table).order_by("key")).all() == [("a", 1), ("b", -2), ("k", 5)]


def test_savepoints_and_sessions(engine: Engine, clicks: Counter) -> None:
    with Session(engine) as session:
        session.execute(clicks.add("k", 1))
        nested = session.begin_nested()
        session.execute(clicks.add("k", 10))
        nested.rollback()
        session.execute(clicks.add("k", 100))
        session.commit()
        assert session.scalar(select(clicks.count("k"))) == 101


def test_many_transactions_spread_over_the_configured_shards(engine: Engine, clicks: Counter) -> None:
    with engine.connect() as connection:
        for _ in range(60):
            connection.execute(clicks.add("k"))
            connection.execute(clicks.add("hot"))
            connection.commit()
        assert (len(rows(connection)), sum(rows(connection))) == (4, 60)
        assert (len(rows(connection, "hot")), sum(rows(connection, "hot"))) == (7, 60)


def test_expressions(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        holder.create(connection)
        connection.execute(holder.insert(), [{"token": "a", "balance": 3}, {"token": "b", "balance": -1},
                                             {"token": None, "balance": 7}])  # fmt: skip
        connection.execute(clicks.add(bindparam("k"), bindparam("n")), {"k": "b", "n": -32768})
        connection.execute(clicks.subtract("c", -32768))
        connection.execute(clicks.add(holder.c.token, holder.c.balance).where(holder.c.token.is_not(None)))
        found = select(holder.c.token, clicks.count(holder.c.token)).where(clicks.count(holder.c.token) != 9)
        assert connection.execute(found.order_by(holder.c.id)).all() == [("a", 3), ("b", -32769), (None, 0)]
        assert connection.execute(select(Holder.token).order_by(clicks.count(Holder.token))).scalars().all() == [
            "b", None, "a",
        ]  # fmt: skip
        assert connection.scalar(select(clicks.count("c"))) == 32768
        connection.execute(text('ALTER TABLE holder ALTER token TYPE text COLLATE "POSIX"'))
        counts = select(clicks.count(holder.c.token)).select_from(holder).order_by(holder.c.id)
        assert connection.execute(counts).scalars().all() == [3, -32769, 0]
        connection.execute(clicks.add_many({"a": 0}))
        connection.execute(clicks.set(holder.c.token, 3).where(holder.c.balance == 3))
        estimate = select(clicks.estimate(holder.c.token, shards_read=4)).select_from(holder).order_by(holder.c.id)
        assert connection.execute(estimate).scalars().all() == [3, -32769, 0]


@pytest.mark.parametrize("n", [0, 1, -1, 5, -5, 1000, -1001, BIGGEST, -BIGGEST - 1])
def test_set_and_rebalance(engine: Engine, clicks: Counter, n: int) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.add("k", 3))
        connection.execute(clicks.add("other", 8))
        for statement in (clicks.set("k", n), clicks.set("k", n), clicks.rebalance("k")):
            connection.execute(statement)
            assert connection.scalar(select(clicks.count("k"))) == n
            found = rows(connection)
            assert (sum(found), len(found)) == (n, min(abs(n), 4))
            assert max(found, default=0) - min(found, default=0) <= 1
        assert connection.scalar(select(clicks.count("other"))) == 8


def test_reset(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.add_many({"k": 3, "l": 4}))
        connection.execute(clicks.reset("k"))
        connection.execute(clicks.reset("unknown"))
        assert connection.scalars(clicks.keys()).all() == ["l"]
        assert rows(connection) == []
        connection.execute(clicks.add("k", 2))
        assert connection.scalar(select(clicks.count("k"))) == 2


def test_numeric(engine: Engine, tally: Tally) -> None:
    exact = tally.counters["exact"]
    with engine.begin() as connection:
        connection.execute(exact.add("k", Decimal("0.10")))
        connection.execute(exact.add("k", 2**70))
        connection.execute(exact.subtract("k", Decimal("0.35")))
        expected = 2**70 - Decimal("0.25")
        assert connection.scalar(select(exact.count("k"))) == expected
        connection.execute(exact.rebalance("k"))
        assert connection.scalar(select(exact.count("k"))) == expected
        assert len(rows(connection, counter="exact")) == 3
        connection.execute(exact.set("k", Decimal("-7.5")))
        assert rows(connection, counter="exact") == [Decimal("-2"), Decimal("-2.5"), Decimal("-3")]
        assert connection.execute(exact.counts(["k", "z"])).all() == [("k", Decimal("-7.5")), ("z", 0)]
        assert connection.scalar(select(exact.estimate("k", shards_read=9))) == Decimal("-7.5")


def test_overflow_is_postgresqls_own_and_loses_nothing(engine: Engine, clicks: Counter) -> None:
    with engine.connect() as connection:
        connection.execute(clicks.set("k", BIGGEST))
        connection.commit()
        for statement in (clicks.add("k"), clicks.add("k", BIGGEST), clicks.set("k", BIGGEST + 1),
                          clicks.add("k", -BIGGEST - 2)):  # fmt: skip
            with pytest.raises(DBAPIError) as caught:
                connection.execute(statement)
            assert sqlstate(caught.value) == "22003"
            connection.rollback()
            assert connection.scalar(select(clicks.count("k"))) == BIGGEST
        connection.execute(clicks.subtract("k", BIGGEST))
        connection.execute(clicks.subtract("k", BIGGEST))
        connection.execute(clicks.add("k"))
        assert connection.scalar(select(clicks.count("k"))) == 1 - BIGGEST


def test_estimate(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.set("k", 400))
        for read in (-3, 0, 1, 2, 3, 4, 99, 2**40):
            assert connection.scalar(select(clicks.estimate("k", shards_read=read))) == 400
        connection.execute(clicks.set("u", 3))  # in three of four shards
        singles = {connection.scalar(select(clicks.estimate("u"))) for _ in range(60)}
        assert singles == {0, 4}
        assert connection.scalar(select(clicks.estimate("u", shards_read=4))) == 3
        assert connection.scalar(select(clicks.estimate("unknown"))) == 0


@pytest.mark.parametrize(
    ("call", "state"),
    [
        ("SELECT tally.counter_add('clicks', NULL, 1)", "22004"),
        ("SELECT tally.counter_add('clicks', 'k', NULL)", "22004"),
        ("SELECT tally.counter_add('clicks', 'k', 1.5)", "22023"),
        ("SELECT tally.counter_add('exact', 'k', 'NaN')", "22023"),
        ("SELECT tally.counter_add('exact', 'k', 'Infinity')", "22023"),
        ("SELECT tally.counter_set('clicks', 'k', 0.1)", "22023"),
        ("SELECT tally.counter_add('clicks', repeat('x', 2001), 1)", "23514"),
        ("SELECT tally.counter_add('nothing', 'k', 1)", "42704"),
        ("SELECT tally.counter_rebalance('nothing', 'k')", "42704"),
        ("SELECT tally.counter_add_many('clicks', ARRAY['a', 'b'], ARRAY[1])", "22004"),
    ],
)
def test_what_other_languages_may_get_wrong(engine: Engine, clicks: Counter, call: str, state: str) -> None:
    with engine.connect() as connection:
        with pytest.raises(DBAPIError) as caught:
            connection.execute(text(call))
        assert sqlstate(caught.value) == state
        connection.rollback()
        assert connection.scalars(clicks.keys()).all() == []


def test_odd_names_and_keys(engine: Engine) -> None:
    tally = Tally(schema='My "tally"')
    odd = tally.counter("100% 'odd' \"name\" {x}", shards=2)
    assert tally.install(engine) == [odd.name]
    keys = ["", " ", "a'b", "%s", "{0}", "\\", "ä", "x" * 2000, "日本"]
    with engine.begin() as connection:
        for key in keys:
            connection.execute(odd.add(key, 2))
        assert sorted(connection.scalars(odd.keys()).all()) == sorted(keys)
        assert connection.execute(odd.counts(keys)).all() == [(key, 2) for key in keys]
    assert tally.fold(engine)[0].groups == len(keys)
    assert tally.uninstall(engine) == [odd.name]


def test_unknown_to_the_database(engine: Engine, tally: Tally) -> None:
    other = tally.counter("other")
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(other.add("k"))
    assert sqlstate(caught.value) == "42704"
    for run in (tally.fold, tally.uninstall):
        with pytest.raises(NotInstalled):
            run(engine, only=["other"])


def test_changed_settings_keep_the_values(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.set("k", 100))
        connection.execute(clicks.set("hot", 100))
        connection.execute(clicks.set("small", 1))
    changed = Tally()
    fewer = changed.counter("clicks", shards=2, shards_for={"hot": 3})
    assert not changed.status(engine)[0].is_current
    assert changed.doctor(engine)[-1].remedy == "tally install clicks"
    assert changed.install(engine) == ["clicks"]
    assert changed.install(engine) == []
    assert changed.status(engine)[0].is_current
    assert count(engine, fewer) == 100
    with engine.begin() as connection:
        assert connection.scalar(select(fewer.estimate("k", shards_read=1))) == 100
        assert len(rows(connection)) == 4
    [result] = changed.fold(engine)
    assert result.deltas == 6
    with engine.begin() as connection:
        assert (len(rows(connection)), len(rows(connection, "hot"))) == (2, 3)
        assert connection.scalar(text("SELECT is_resized FROM tally.counter WHERE name = 'clicks'")) is False
        connection.execute(fewer.set("k", 50))
    assert (count(engine, fewer), count(engine, fewer, "hot")) == (50, 100)
    more = Tally().counter("clicks", shards=9)
    retried = Tally()
    retried.counters["clicks"] = more
    retried.install(engine)
    with engine.begin() as connection:
        connection.execute(more.rebalance("k"))
        assert len(rows(connection)) == 9
    numeric = Tally()
    numeric.counter("clicks", numeric=True)
    with pytest.raises(DeclarationError, match="is installed with bigint values, and declared with numeric"):
        numeric.install(engine)


def test_uninstall_and_install_again(engine: Engine, tally: Tally, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.set("k", 100))
    with engine.begin() as connection:
        connection.execute(clicks.add("k", 5))
        assert tally.uninstall(engine, only=["clicks"]) == ["clicks"]  # it waits for no add
    assert [each.phase for each in tally.status(engine)] == ["declared", "kept"]
    assert tally.install(engine) == ["clicks"]
    assert count(engine, clicks) == 0
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT count(*) FROM tally.counter_shard")) == 0
        assert connection.scalar(text("SELECT count(*) FROM tally.counter_set")) == 0


def test_a_view_of_the_users_is_in_the_way_of_uninstall(engine: Engine, tally: Tally, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.add("k"))
        connection.execute(text("CREATE VIEW mine AS SELECT * FROM tally.clicks"))
    with pytest.raises(InstallError):
        tally.uninstall(engine)
    assert count(engine, clicks) == 1


def test_plan_leaves_nothing(engine: Engine) -> None:
    tally = Tally()
    tally.counter("clicks")
    [planned] = tally.plan(engine)
    assert "CREATE VIEW" in planned.statements[-1].text()
    assert tally.status(engine)[0].phase == "declared"
    assert [each.subject for each in tally.doctor(engine)] == ["tally", "clicks"]
    tally.install(engine)
    assert tally.plan(engine)[0].is_installed
    with engine.begin() as connection:
        connection.execute(text("DROP VIEW tally.clicks"))
    assert '"clicks" is missing' in tally.doctor(engine)[-1].what


def test_names_are_shared_with_grouped_aggregates(engine: Engine) -> None:
    with engine.begin() as connection:
        holder.create(connection)
    grouped = Tally()
    grouped.grouped("m", select(holder.c.token, func.count().label("n")).group_by(holder.c.token))
    grouped.install(engine)
    tally = Tally()
    tally.counter("m")
    with pytest.raises(DeclarationError, match="a grouped aggregate of that name is installed"):
        tally.install(engine)
    tally = Tally()
    tally.counter("n")
    tally.install(engine)
    taken = Tally()
    taken.grouped("n", select(holder.c.token, func.count().label("n")).group_by(holder.c.token))
    with pytest.raises((DeclarationError, InstallError)):
        taken.install(engine)


def with_direct(engine: Engine) -> tuple[Tally, Counter, Counter]:
    with engine.begin() as connection:
        holder.create(connection)
        connection.execute(holder.insert(), [
            {"token": token, "balance": balance}
            for token, balance in [("a", 5), ("a", 0), ("b", 2), ("a", 1), ("c", 0)]
        ])  # fmt: skip
    tally = Tally()
    total = tally.counter("total", direct=select(func.count()).where(holder.c.balance > 0))
    tokens = tally.counter(
        "tokens", shards=3,
        direct=select(holder.c.token, func.sum(holder.c.balance)).group_by(holder.c.token),
    )  # fmt: skip
    tally.counter("free")
    assert tally.install(engine) == ["total", "tokens", "free"]
    return tally, total, tokens


def test_direct_verify_and_backfill(engine: Engine) -> None:
    tally, total, tokens = with_direct(engine)
    first, second = tally.verify(engine)
    assert (first.aggregate, first.status, first.groups, first.drifted) == ("total", "drift", 1, 1)
    assert (second.groups, second.drifted, second.first[0].group) == (2, 2, {"key": "a"})
    assert [result.groups for result in tally.backfill(engine)] == [1, 2]
    assert all(report.is_exact for report in tally.verify(engine))
    assert (count(engine, total, ""), count(engine, tokens, "a")) == (3, 6)
    with engine.begin() as connection:
        connection.execute(tokens.add_many({"a": 2, "z": 1}))
        connection.execute(tokens.reset("b"))
    checks = tally.check_counter(engine, "tokens")
    told: list[tuple[object, ...]] = [(c.counter, c.key, c.actual, c.direct, c.diff, c.status) for c in checks]
    assert told == [
        ("tokens", "a", 8, 6, 2, "drift"), ("tokens", "b", 0, 2, -2, "drift"), ("tokens", "z", 1, 0, 1, "drift"),
    ]  # fmt: skip
    assert [(c.key, c.status) for c in tally.check_counter(engine, "tokens", ["c", "a"])] == [
        ("a", "drift"), ("c", "exact"),
    ]  # fmt: skip
    assert tally.check_counter(engine, "total") == []
    assert tally.backfill(engine, only=["tokens"])[0].groups == 3
    assert tally.backfill(engine, only=["tokens"])[0].groups == 0
    assert all(report.is_exact for report in tally.verify(engine))
    with engine.connect() as connection:
        assert tokens.direct is not None
        assert connection.scalar(select(tokens.direct.count("a"))) == 6
        assert connection.execute(tokens.direct.counts(["b", "c"])).all() == [("b", 2), ("c", 0)]
        for read in (tokens.counts(["a", "b"]), tokens.keys(), select(tokens.count("b"))):
            assert connection.execute(direct_of(read)).all() == connection.execute(read).all()
    for run in (tally.verify, tally.backfill):
        with pytest.raises(UsageError, match='counter "free" has no direct query'):
            run(engine, only=["free"])
    assert tally.doctor(engine) == []
    assert tally.uninstall(engine) == ["total", "tokens", "free"]


@pytest.mark.parametrize(
    ("token", "said"), [(None, "gives 3 for the key None"), ("x" * 2001, "at most 2,000 bytes")], ids=["null", "long"]
)
def test_a_direct_query_that_cannot_be_counted(engine: Engine, token: str | None, said: str) -> None:
    tally, _, tokens = with_direct(engine)
    tally.backfill(engine)
    with engine.begin() as connection:
        connection.execute(holder.insert(), {"token": token, "balance": 3})
    with pytest.raises(TallyError, match=said):
        tally.backfill(engine, only=["tokens"])
    assert count(engine, tokens, "a") == 6


def test_the_database_refuses_a_direct_query(engine: Engine) -> None:
    tally = Tally()
    tally.counter("total", direct=select(func.count()).select_from(holder))
    with pytest.raises(InstallError, match='counter "total": PostgreSQL refused a step'):
        tally.install(engine)
    assert tally.status(engine)[0].phase == "declared"


def test_privileges(engine: Engine, clicks: Counter, make_role: Callable[[], str]) -> None:
    role = make_role()
    with engine.connect() as connection:
        connection.execute(clicks.add("k", 2))
        connection.execute(text(f"GRANT USAGE ON SCHEMA tally TO {role}"))
        connection.commit()

        def is_refused(statement: object) -> bool:
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            try:
                connection.execute(statement)  # type: ignore[call-overload]  # whatever is to be tried
            except DBAPIError as error:
                return sqlstate(error) == "42501"
            else:
                return False
            finally:
                connection.rollback()

        writes = (clicks.add("k"), clicks.add_many({"k": 1}), clicks.set("k", 5), clicks.reset("k"),
                  clicks.rebalance("k"))  # fmt: skip
        reads = (select(clicks.count("k")), clicks.keys(), select(clicks.estimate("k")))
        assert all(map(is_refused, (*writes, *reads)))
        functions = ", ".join(f"tally.counter_{name}" for name in ("add", "add_many", "set", "rebalance", "estimate"))
        connection.execute(text(f"GRANT EXECUTE ON FUNCTION {functions} TO {role}"))
        connection.execute(text(f"GRANT SELECT ON tally.clicks TO {role}"))
        connection.commit()
        assert not any(map(is_refused, (*writes, *reads)))
        for hidden in ("counter", "counter_shard", "counter_set", "exact"):
            assert is_refused(text(f"SELECT FROM tally.{hidden}"))
        for function in ("checked('clicks', 'k', 1)", "spread(1, 'k', 1, 1)", "held(1, 'k')", "fold('clicks', '', 1)"):
            assert is_refused(text(f"SELECT tally.counter_{function}"))


def test_adds_are_hot_updates(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(clicks.set("k", 4))
        for _ in range(20):
            connection.execute(clicks.add("k"))
    with engine.connect() as connection:
        found = connection.execute(
            text("SELECT pg_stat_get_tuples_updated(c), pg_stat_get_tuples_hot_updated(c)"
                 " FROM (SELECT pg_stat_force_next_flush(), 'tally.counter_shard'::regclass AS c) AS f")
        ).one()  # fmt: skip
    assert found[0] == found[1]


def test_publication_of_all_tables(engine: Engine, clicks: Counter) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE PUBLICATION p FOR ALL TABLES"))
        for n in (1, 2, 3):
            connection.execute(clicks.add("k", n))
        connection.execute(clicks.rebalance("k"))
        assert connection.scalar(select(clicks.count("k"))) == 6
