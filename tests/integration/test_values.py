"""Values as group key, as argument of count(DISTINCT …), min and max: equal ones spelled in two ways, odd, and wide.

tests/integration/test_lifecycle_changes.py has the ordinary values of the ordinary types.
"""

from dataclasses import dataclass
from typing import LiteralString

import pytest
from psycopg import sql

from tests.integration.keeper import SETUP, Keeper, keeper

__all__ = ["keeper"]  # a fixture


@dataclass(frozen=True)
class Values:
    """Spellings of values of one type; neighbours are often equal. min and max exist since a version, or never."""

    type: LiteralString
    spellings: tuple[str, ...]
    ordered_since: int | None = 15


FAMILIES = {
    "numbers": (
        Values("numeric", ("1", "1.0", "1.00", "0", "-0.0", "NaN", "Infinity", "-Infinity", "1e-40", "1e60", "-1e60")),
        Values("double precision", ("0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "5e-324", "1e308")),
        Values("real", ("0", "-0", "NaN", "Infinity", "-Infinity", "0.1", "1e-45")),
        Values("bigint", ("9223372036854775807", "-9223372036854775808", "0")),
        Values("oid", ("0", "4294967295")),
    ),
    "times": (
        Values("interval", ("1 day", "24 hours", "1 mon", "30 days", "720 hours", "0", "-1 day", "1 day -24 hours")),
        Values("timestamptz", ("2024-03-01 00:00+00", "2024-03-01 02:00+02", "infinity", "-infinity", "0044-03-15 BC")),
        Values("timestamp", ("infinity", "-infinity", "2024-02-29 24:00", "2024-03-01 00:00")),
        Values("date", ("infinity", "-infinity", "0044-03-15 BC", "2024-02-29")),
        Values("timetz", ("10:00+00", "11:00+01", "24:00+00", "00:00+00")),
        Values("time", ("00:00", "24:00", "23:59:59.999999")),
    ),
    "texts": (
        Values("text", ("", " ", "a", "A", "ä", "a\u0308", "\u1e9e")),
        Values('text COLLATE "C"', ("", "b", "B", "ä", "z")),
        Values("char(4)", ("", "    ", "a", "a   ", "ab")),
        Values("varchar(9)", ("", " ", "a", "a ")),
        Values("name", ("", "a", "A"), None),
        Values('"char"', ("", "a", "A"), None),
        Values("bytea", ("", "\\x00", "\\x0000", "\\xff"), 18),
        Values("uuid", ("00000000-0000-0000-0000-00000000000a", "{0000000000000000000000000000000A}"), None),
    ),
    "documents": (
        Values("jsonb", ("null", '"null"', '{"a": 1.0}', '{"a": 1.00}', '{"b": 1, "a": [1, 2]}', "[]", "{}"), None),
        Values("jsonb[]", ("{}", "{NULL}", "{1,1.0}", "{1.0,1}"), None),
        Values("inet", ("10.0.0.1", "10.0.0.1/32", "10.0.0.1/24", "::1", "::ffff:10.0.0.1")),
        Values("cidr", ("10.0.0.0/24", "10.0.0.0/16")),
        Values("macaddr8", ("08:00:2b:01:02:03:04:05", "0800.2b01.0203.0405"), None),
        Values("pg_lsn", ("0/0", "0/1", "1/0")),
        Values("boolean", ("yes", "true", "no"), None),
    ),
    "several in one": (
        Values("text[]", ("{}", "{NULL}", "{a}", "[2:2]={a}", "{{a},{b}}", "{a,b}")),
        Values("numeric[]", ("{1.0}", "{1.00}", "{NaN,NULL}", "{0}", "{-0.0}")),
        Values("mood[]", ("{sad}", "{ok,sad}", "{}")),
        Values("int4range", ("empty", "[1,1]", "[1,2)", "(,)", "(,5)", "[3,3)"), None),
        Values("numrange", ("[1,2]", "[1.0,2.00]", "[1,2)", "(1,1)", "empty"), None),
        Values("tstzrange", ("[2024-03-01 00:00+00,)", "[2024-03-01 02:00+02,infinity)", "empty"), None),
        Values("int4multirange", ("{}", "{[1,2),[2,3)}", "{[1,3)}", "{empty,[5,6)}", "{[1,3),[5,6)}"), None),
        Values("nummultirange", ("{[1,2]}", "{[1.0,2.0]}", "{}"), None),
    ),
    "enum and domains": (
        Values("mood", ("sad", "ok")),
        Values("word", ("", "a", "b")),
        Values("few", ("{}", "{NULL}", "{1,2}")),
        Values("price", ("0", "-0.00", "1.5", "1.50", "NaN")),
        Values("paid", ("0", "999.99", "1.5", "1.50")),
    ),
    # Both were once wrong: PostgreSQL finds neither `=` for anyenum nor a hash for a range under a domain.
    "domains that need their base": (
        Values("felt", ("sad", "ok"), None),
        Values("stay", ("empty", "[1,1]", "[1,2)"), None),
    ),
}


WRITES = [
    sql.SQL("INSERT INTO item (g, x, y) SELECT o.g, o.x, o.y FROM item AS o WHERE id % 3 > 0"),
    # The next spelling of each: often the same value, so no group changes, and its image does.
    sql.SQL(
        "UPDATE item SET x = v.x FROM spelling AS v WHERE item.id % 2 = 0"
        " AND v.i = (SELECT i % (SELECT max(i) FROM spelling) + 1 FROM spelling AS o WHERE o.i = item.y)"
    ),
    sql.SQL("DELETE FROM item WHERE id % 3 = 0"),
    sql.SQL("UPDATE item SET g = g + 1, x = NULL WHERE id % 5 = 0"),
    sql.SQL("DELETE FROM item WHERE id % 2 = 1"),
    sql.SQL("INSERT INTO item (g, x, y) SELECT 1, x, i FROM spelling"),
    sql.SQL("UPDATE item SET x = (SELECT x FROM spelling WHERE i = 1)"),
    sql.SQL("DELETE FROM item"),
]


@pytest.mark.parametrize(
    "values", [pytest.param(each, id=each.type) for family in FAMILIES.values() for each in family]
)
def test_values(keeper: Keeper, values: Values) -> None:
    keeper.app.execute(SETUP)
    keeper.app.execute(
        sql.SQL("CREATE TABLE spelling (i serial PRIMARY KEY, x {type})").format(type=sql.SQL(values.type))
    )
    keeper.app.execute(
        sql.SQL("CREATE TABLE item (id serial PRIMARY KEY, g integer, x {type}, y integer)").format(
            type=sql.SQL(values.type)
        )
    )
    for spelling in values.spellings:
        keeper.app.execute("INSERT INTO spelling (x) VALUES (%s)", [spelling])
    keeper.app.execute("INSERT INTO item (g, x, y) SELECT g, x, i FROM spelling, generate_series(1, 2) AS g")
    keeper.app.execute("INSERT INTO item (g, x, y) VALUES (1, NULL, 1), (3, NULL, 1)")
    measures = "count(DISTINCT x) AS values, count(x) AS known"
    if values.ordered_since is not None and keeper.app.info.server_version >= values.ordered_since * 10000:
        measures += ", min(x) AS least, max(x) AS greatest, max(x) FILTER (WHERE id % 2 = 0) AS even"
    keeper.keep(
        "SELECT x, count(*) AS n, max(id) AS last, count(DISTINCT g) AS gs FROM item GROUP BY x",
        " ".join(["SELECT g,", measures, "FROM item GROUP BY g"]),
        " ".join(["SELECT", measures, "FROM item"]),
    )
    keeper.stay_exact(*WRITES)


def test_paths_into_documents(keeper: Keeper) -> None:
    keeper.app.execute("CREATE TABLE item (id serial PRIMARY KEY, payload jsonb, raw json)")
    keeper.keep(
        "SELECT payload ->> 'k' AS k, count(*) AS n, max(payload ->> 'v') AS v FROM item GROUP BY payload ->> 'k'",
        "SELECT payload #>> '{a,b}' AS k, count(*) AS n, count(DISTINCT payload -> 'v') AS vs FROM item GROUP BY 1",
        "SELECT payload #> '{a,0}' AS k, payload ? 'k' AS has, count(*) AS n FROM item GROUP BY 1, 2",
        "SELECT raw ->> 'k' AS k, count(*) AS n, count(raw -> 'v') AS vs FROM item WHERE raw ->> 'k' <> '' GROUP BY 1",
        "SELECT payload @> '{\"a\": {\"b\": 1}}' AS found, payload['k'] AS k, count(*) AS n FROM item GROUP BY 1, 2",
    )
    documents = (
        '{"k": "x", "v": 1.0, "a": {"b": 1}}', '{"a": {"b": 1.00}, "v": 1, "k": "x"}', '{"k": null, "v": null}',
        '{"k": "", "v": "text"}', '{"k": "null", "a": [{"b": 2}, 3]}', "{}", "[]", '"k"', "null", '{"v": 1e300}',
    )  # fmt: skip
    rows = sql.SQL(", ").join(
        sql.SQL("({d}::jsonb, {d}::json)").format(d=sql.Literal(document)) for document in documents
    )
    keeper.stay_exact(
        sql.SQL("INSERT INTO item (payload, raw) VALUES {rows}, {rows}, (NULL, NULL)").format(rows=rows),
        sql.SQL("UPDATE item SET raw = raw::text::jsonb::json, payload = payload || '{\"v\": 1.000}' WHERE id % 2 = 0"),
        sql.SQL("DELETE FROM item WHERE id % 3 = 0"),
        sql.SQL("UPDATE item SET payload['a']['b'] = '7' WHERE jsonb_typeof(payload -> 'a') = 'object'"),
        sql.SQL("UPDATE item SET payload = payload - 'k' WHERE jsonb_typeof(payload) = 'object'"),
        sql.SQL("DELETE FROM item WHERE id > 4"),
    )  # fmt: skip


def test_sums_past_the_limits_of_their_arguments(keeper: Keeper) -> None:
    keeper.app.execute(
        "CREATE TABLE item (id serial PRIMARY KEY, g integer, big bigint, small smallint, n integer, num numeric)"
    )
    calls = ", ".join(
        f"sum({x}) AS sum_{x}, avg({x}) AS avg_{x}, var_pop({x}) AS var_{x}" for x in ("big", "small", "n", "num")
    )
    keeper.keep(" ".join(["SELECT g,", calls, "FROM item GROUP BY g"]), " ".join(["SELECT", calls, "FROM item"]))
    keeper.stay_exact(
        sql.SQL(
            "INSERT INTO item (g, big, small, n, num) SELECT i % 2, 9223372036854775807, 32767, 2147483647,"
            " 1e130 + 1e-130 FROM generate_series(1, 400) AS s (i)"
        ),
        sql.SQL("UPDATE item SET big = - big, n = - n, num = - num WHERE id % 4 = 0"),
        sql.SQL("INSERT INTO item (g, big, n, num) VALUES (1, -9223372036854775808, -2147483648, 'NaN'), (1, 1, 1, 0)"),
        sql.SQL("DELETE FROM item WHERE num = 'NaN' OR id % 3 = 0"),
        sql.SQL("DELETE FROM item WHERE g = 1"),
        sql.SQL("UPDATE item SET num = 1.0, big = 0"),
    )  # fmt: skip


def test_wide_keys_of_every_kind(keeper: Keeper) -> None:
    """From below the limit of a B-tree to 6,000 bytes that no compression makes narrow."""
    keeper.app.execute(SETUP)
    keeper.app.execute(
        "CREATE TABLE item (id serial PRIMARY KEY, g integer, x text, y text, raw bytea, words text[], payload jsonb,"
        " num numeric); CREATE FUNCTION wide(seed integer, size integer) RETURNS text LANGUAGE sql AS"
        " $$ SELECT left(string_agg(md5(s || '/' || seed), ''), size) FROM generate_series(0, size / 32) AS s $$"
    )
    measures = "count(*) AS n, max(id) AS last, count(DISTINCT y) AS ys"
    keys: list[LiteralString] = ["x", "raw", "words", "payload", "num", "x || y", "payload ->> 'a'"]
    keeper.keep(
        *(" ".join(["SELECT", key, "AS k,", measures, "FROM item GROUP BY 1"]) for key in keys),
        "SELECT x, y, count(*) AS n, max(payload ->> 'a') AS a, min(words) AS w, var_pop(num) AS v FROM item"
        " GROUP BY x, y",
        "SELECT g, count(DISTINCT payload) AS d, count(DISTINCT num) AS nums, sum(num) AS total FROM item GROUP BY g",
    )
    keeper.stay_exact(
        sql.SQL(
            "INSERT INTO item (g, x, y, raw, words, payload, num)"
            " SELECT i % 2, w, wide(i % 2, size / 2), w::bytea, ARRAY[w, NULL], jsonb_build_object('a', w),"
            " ('1' || translate(w, 'abcdef', '123456'))::numeric"
            " FROM generate_series(1, 8) AS s (i), unnest(ARRAY[700, 1300, 1990, 2700, 6000]) AS size,"
            " wide(i % 3, size) AS w"
        ),
        sql.SQL("UPDATE item SET x = x || '', num = num * 1.0, payload = payload || '{}' WHERE id % 2 = 0"),
        sql.SQL("DELETE FROM item WHERE id % 3 = 0"),
        sql.SQL("UPDATE item SET x = left(x, 100), words = words || 'w'::text WHERE id % 4 = 0"),
        sql.SQL("DELETE FROM item WHERE id % 2 = 0"),
    )  # fmt: skip
