"""`shape_of` refuses what cannot be kept: what, and what to write instead, in words that stay as they are."""

import pytest

from tallystick.declare.sqltext import shape_of
from tallystick.errors import DeclarationError

PLAIN = "Declare a plain SELECT … FROM one table … GROUP BY."
ONE = "Declare one SELECT."
ONE_TABLE = "Declare the aggregate over one table."
JOIN = ("a join cannot be kept yet", "Declare the aggregate over one table and join when reading.")
SUBQUERY = ("a subquery cannot be kept", "Keep the aggregate over its table and join when reading.")
WINDOW = ("a window function cannot be kept", "Apply window functions when reading.")
STAR = ("SELECT * cannot be kept", "Name the group keys and the measures.")
ROW = ("a whole row cannot be kept", "Name its columns.")
NAME = "Name it with AS or .label()."
LEXICAL = "Check quotes and parentheses."
ONE_EACH = "Declare one aggregate per SELECT."
GROUPING = "Declare one aggregate per grouping."
TOTALS = "Leave GROUP BY out for one row of totals."
COMBINE = "Add it to GROUP BY, or keep the aggregates themselves and combine them when reading."
FUNCTIONS = (
    "Add it to GROUP BY if it is a plain expression;"
    " the aggregates kept are avg, bool_and, bool_or, count, every, max, min,"
    " stddev, stddev_pop, stddev_samp, sum, var_pop, var_samp, variance."
)


def refusal(text: str) -> tuple[str, str | None]:
    """What the refusal says, without the name that each begins with, and its hint."""
    with pytest.raises(DeclarationError) as caught:
        shape_of("x", text)
    start = 'aggregate "x": '
    assert caught.value.message.startswith(start)
    assert caught.value.message.endswith(".")
    return caught.value.message[len(start) : -1], caught.value.hint


@pytest.mark.parametrize(
    ("text", "what", "instead"),
    [
        ("", "expected one SELECT, got nothing", PLAIN),
        (" ; ", "expected one SELECT, got nothing", PLAIN),
        ("-- nothing", "expected one SELECT, got nothing", PLAIN),
        ("INSERT INTO t VALUES (1)", "expected one SELECT, got INSERT", PLAIN),
        ("VALUES (1)", "expected one SELECT, got VALUES", PLAIN),
        ("TABLE t", "expected one SELECT, got TABLE", PLAIN),
        ("(SELECT count(*) FROM t)", "expected one SELECT, got (", PLAIN),
        ("WITH u AS (SELECT 1) SELECT count(*) FROM u", "expected one SELECT, got WITH", PLAIN),
        ("SELECT count(*) FROM t; DROP TABLE t", "found a second statement", ONE),
        ("SELECT count(*) FROM t FROM u", "found FROM twice", ONE),
        ("SELECT count(*) FROM t WHERE a WHERE b", "found WHERE twice", ONE),
        ("SELECT count(*) FROM t GROUP BY a GROUP BY b", "found GROUP BY twice", ONE),
        ("SELECT count(*)", "there is no FROM clause", "Name the table whose rows are aggregated."),
    ],
)
def test_not_one_select(text: str, what: str, instead: str) -> None:
    assert refusal(text) == (what, instead)


@pytest.mark.parametrize(
    ("clause", "what", "instead"),
    [
        (
            "HAVING count(*) > 1",
            "a HAVING clause",
            "Keep every group and filter when reading: SELECT … FROM the view WHERE ….",
        ),
        ("ORDER BY 1", "an ORDER BY clause", "Order when reading, or use .top()."),
        ("LIMIT 1", "a LIMIT clause", "Limit when reading, or use .top()."),
        ("OFFSET 1", "an OFFSET clause", "Page when reading."),
        ("FETCH FIRST ROW ONLY", "a FETCH clause", PLAIN),
        ("FOR UPDATE", "a row-locking clause", PLAIN),
        ("WINDOW w AS ()", "a WINDOW clause", PLAIN),
        ("UNION ALL SELECT 1", "a set operation (UNION)", ONE_EACH),
        ("INTERSECT SELECT 1", "a set operation (INTERSECT)", ONE_EACH),
        ("EXCEPT SELECT 1", "a set operation (EXCEPT)", ONE_EACH),
        ("INTO u", "SELECT INTO", PLAIN),
    ],
)
def test_clause(clause: str, what: str, instead: str) -> None:
    for spelled in (clause, clause.lower(), f"/* ; */ {clause}"):
        assert refusal(" ".join(["SELECT count(*) FROM t", spelled])) == (f"{what} cannot be kept", instead)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("t JOIN u USING (a)", JOIN),
        ("t LEFT JOIN u ON t.a = u.a", JOIN),
        ("t NATURAL JOIN u", JOIN),
        ("t, u", JOIN),
        ("(t JOIN u USING (a))", ("FROM (t JOIN u USING (a)) is not a table", ONE_TABLE)),
        ("(SELECT 1) AS u", SUBQUERY),
        ("f(1)", ("FROM f(1) is not a table", ONE_TABLE)),
        ("LATERAL f(1)", ("FROM LATERAL f(1) is not a table", ONE_TABLE)),
        ("t AS u (a)", ("FROM t AS u (a) is not a table", ONE_TABLE)),
        ("t TABLESAMPLE system (1)", ("FROM t TABLESAMPLE system (1) is not a table", ONE_TABLE)),
        ("t u v", ("FROM t u v is not one table", ONE_TABLE)),
        ("'t'", ("FROM 't' is not one table", ONE_TABLE)),
        ("ONLY t", ("FROM ONLY cannot be kept", "Declare the aggregate over the whole table.")),
    ],
)
def test_source(source: str, expected: tuple[str, str]) -> None:
    assert refusal(" ".join(["SELECT count(*) FROM", source])) == expected


@pytest.mark.parametrize(
    ("selected", "expected"),
    [
        ("*", STAR),
        ("*, count(*)", STAR),
        ("t.*, count(*)", ROW),
        ("count(t.*)", ROW),
        (
            "DISTINCT a",
            ("SELECT DISTINCT cannot be kept", "Use GROUP BY; its groups are distinct already."),
        ),
        (
            "DISTINCT ON (a) a, count(*)",
            ("SELECT DISTINCT cannot be kept", "Use GROUP BY; its groups are distinct already."),
        ),
        (", count(*)", ("an entry of the SELECT list is empty", "Check the commas.")),
        ("count(*),", ("an entry of the SELECT list is empty", "Check the commas.")),
        ("", ("nothing is aggregated", "Add at least one measure, for example count(*).")),
        (
            "count(*), count(x)",
            ('two result columns are called "count"', "Give each its own name with AS or .label()."),
        ),
        (
            'count(*) AS n, sum(x) AS "n"',
            ('two result columns are called "n"', "Give each its own name with AS or .label()."),
        ),
        ("a + 1, count(*)", ("a + 1 has no name", NAME)),
        ("a::text, count(*)", ("a::text has no name", NAME)),
        ("(t.addr).street, count(*)", ("(t.addr).street has no name", NAME)),
        ("CASE WHEN a THEN 1 END, count(*)", ("CASE WHEN a THEN 1 END has no name", NAME)),
        ("count(*) n", ("count(*) n has no name", NAME)),
        ("a, count(*)", ("a is not a group key, and not one aggregate call alone", COMBINE)),
    ],
)
def test_select_list(selected: str, expected: tuple[str, str]) -> None:
    assert refusal(" ".join(["SELECT", selected, "FROM t"])) == expected


@pytest.mark.parametrize(
    "item",
    [
        "sum(x) + 1 AS s",
        "sum(x)::int AS s",
        "-sum(x) AS s",
        "sum(x) / count(*) AS s",
        "coalesce(sum(x), 0) AS s",
        "CASE WHEN true THEN sum(x) END AS s",
        "array_agg(x) FILTER (WHERE a) AS s",
        "percentile_cont(0.5) WITHIN GROUP (ORDER BY x) AS s",
        "'constant' AS s",
        "1 AS s",
        "count(*) FILTER (WHERE a) + 1 AS s",
        "x AS s",
    ],
)
def test_more_than_one_aggregate_call(item: str) -> None:
    what = item.removesuffix(" AS s") + " is not a group key, and not one aggregate call alone"
    assert refusal(" ".join(["SELECT", item, "FROM t"])) == (what, COMBINE)


@pytest.mark.parametrize(
    "call",
    [
        "string_agg(a, ',')",
        "array_agg(x)",
        "upper(a)",
        "corr(x, y)",
        "bit_and(x)",
        "mode()",
        "app.total(x)",
        "app.sum(x)",
    ],
)
def test_unknown_function(call: str) -> None:
    what, instead = refusal(" ".join(["SELECT", call, "AS s FROM t"]))
    if call.startswith("app."):
        assert what == f"{call} is a function of the schema app"
        assert instead == "Use PostgreSQL's own aggregates, if need be over a cast, as in min(x::text)."
    else:
        assert (what, instead) == (f"{call} is neither a group key nor an aggregate that can be kept", FUNCTIONS)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("count()", ("count() has no argument", "Write count(*) or name a column.")),
        ("count(x, y)", ("count(x, y) has several arguments", "Use an aggregate of one argument.")),
        (
            "sum(x ORDER BY y)",
            ("sum(x ORDER BY y) orders its input", "These aggregates do not depend on order; leave ORDER BY out."),
        ),
        (
            "sum(DISTINCT x)",
            ("sum(DISTINCT x) cannot be kept", "DISTINCT is kept for count(DISTINCT …) only."),
        ),
        (
            "avg(DISTINCT x)",
            ("avg(DISTINCT x) cannot be kept", "DISTINCT is kept for count(DISTINCT …) only."),
        ),
        ("sum(x) OVER ()", WINDOW),
        ("sum(x) OVER w", WINDOW),
        ("rank() OVER (ORDER BY x)", WINDOW),
        ("count(*) FILTER (WHERE x IN (SELECT 1))", SUBQUERY),
        ("sum((SELECT 1))", SUBQUERY),
    ],
)
def test_call(call: str, expected: tuple[str, str]) -> None:
    assert refusal(" ".join(["SELECT", call, "AS s FROM t"])) == expected


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("a, b", ("group key b is not selected", "Add it to the SELECT list: readers find groups by it.")),
        ("a, 7", ("group key 7 is not selected", "Add it to the SELECT list: readers find groups by it.")),
        (
            "a, lower(a)",
            ("group key lower(a) is not selected", "Add it to the SELECT list: readers find groups by it."),
        ),
        ("ROLLUP (a)", ("ROLLUP cannot be kept", GROUPING)),
        ("CUBE (a)", ("CUBE cannot be kept", GROUPING)),
        ("a, cube(b)", ("CUBE cannot be kept", GROUPING)),
        ("GROUPING SETS ((a), ())", ("GROUPING SETS cannot be kept", GROUPING)),
        ("()", ("an empty grouping set cannot be kept", TOTALS)),
        ("a, ()", ("an empty grouping set cannot be kept", TOTALS)),
    ],
)
def test_grouping(group_by: str, expected: tuple[str, str]) -> None:
    assert refusal(" ".join(["SELECT a, count(*) FROM t GROUP BY", group_by])) == expected


def test_subquery_in_where() -> None:
    assert refusal("SELECT count(*) FROM t WHERE x IN (SELECT 1)") == SUBQUERY


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("SELECT count(*) FROM t WHERE x = 'abc", 'cannot read the SQL at "\'abc"'),
        ('SELECT "a FROM t', "cannot read the SQL at '\"a FROM t'"),
        ("SELECT $x$ FROM t $y$", "cannot read the SQL at '$x$ FROM t $y$'"),
        ("SELECT count(*) FROM t WHERE \x01", r"cannot read the SQL at '\x01'"),
        ("SELECT /* /* */ count(*) FROM t", "a comment is not closed"),
        ("SELECT count(*) FROM t WHERE (a", "parentheses do not match"),
        ("SELECT count(*)) FROM t", "parentheses do not match"),
    ],
)
def test_text_that_is_not_sql(text: str, what: str) -> None:
    assert refusal(text) == (what, LEXICAL)


@pytest.mark.parametrize("text", ["SELECT ) count(*) FROM (t", "SELECT count(*) FROM t)(", "SELECT sum)x( FROM t"])
def test_parentheses_that_close_before_they_open(text: str) -> None:
    refusal(text)


def test_empty_from() -> None:
    assert refusal("SELECT count(*) FROM WHERE a") == (
        "there is no table after FROM",
        "Name the table whose rows are aggregated.",
    )
