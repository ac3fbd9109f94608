"""`shape_of` takes a declaration apart and keeps each expression as it is written."""

import pytest

from tallystick.declare.sqltext import Key, Measure, Shape, shape_of
from tallystick.errors import DeclarationError

COUNT = Measure("count", "count", None)


def shape(text: str) -> Shape:
    return shape_of("x", text)


def sql(*parts: str) -> str:
    """Text that is taken apart and never executed."""
    return " ".join(parts)


def keys(text: str) -> list[tuple[str, str]]:
    return [(key.name, key.expression) for key in shape(text).keys]


def measure(call: str) -> Measure:
    (found,) = shape(sql("SELECT", call, "FROM t")).measures
    return found


def test_whole_shape() -> None:
    text = """
        SELECT m.chat_id, date_trunc('day', timezone('UTC', m.at)) AS day,
               count(*) AS messages, sum(m.size) FILTER (WHERE m.size > 0) AS "Bytes"
        FROM app.message AS m
        WHERE m.deleted_at IS NULL
        GROUP BY m.chat_id, 2;
    """
    assert shape(text) == Shape(
        keys=(Key("chat_id", "m.chat_id"), Key("day", "date_trunc('day', timezone('UTC', m.at))")),
        measures=(
            Measure("messages", "count", None),
            Measure("Bytes", "sum", "m.size", filter="m.size > 0"),
        ),
        source="app.message",
        alias="m",
        where="m.deleted_at IS NULL",
        columns=("chat_id", "day", "messages", "Bytes"),
    )


def test_columns_keep_their_declared_order() -> None:
    text = "SELECT count(*) AS n, b, sum(x) AS s, a FROM t GROUP BY a, b"
    assert shape(text).columns == ("n", "b", "s", "a")
    assert keys(text) == [("b", "b"), ("a", "a")]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("t", ("t", "t")),
        ("T", ("T", "t")),
        ("t u", ("t", "u")),
        ("t AS u", ("t", "u")),
        ("s.t", ("s.t", "t")),
        ("d.s.t AS u", ("d.s.t", "u")),
        ('"Select"."T a" AS "where"', ('"Select"."T a"', "where")),
        ('s."a""b"', ('s."a""b"', 'a"b')),
        ("t -- the table\n", ("t", "t")),
    ],
)
def test_source(source: str, expected: tuple[str, str]) -> None:
    found = shape(sql("SELECT count(*) FROM", source))
    assert (found.source, found.alias) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("count(*)", COUNT),
        ("COUNT ( * )", COUNT),
        ("count(*) AS n", Measure("n", "count", None)),
        ("count(x)", Measure("count", "count", "x")),
        ("count(DISTINCT x)", Measure("count", "count", "x", distinct=True)),
        ("count(DISTINCT (x))", Measure("count", "count", "(x)", distinct=True)),
        ("sum(ALL x)", Measure("sum", "sum", "x")),
        ("max(DISTINCT x)", Measure("max", "max", "x")),
        ("min(DISTINCT x)", Measure("min", "min", "x")),
        ("every(DISTINCT ok)", Measure("every", "every", "ok")),
        ("bool_or(ok)", Measure("bool_or", "bool_or", "ok")),
        ("stddev_samp(x)", Measure("stddev_samp", "stddev_samp", "x")),
        ("var_pop(x + y)", Measure("var_pop", "var_pop", "x + y")),
        ("sum(a.b)", Measure("sum", "sum", "a.b")),
        ("sum(greatest(x, y))", Measure("sum", "sum", "greatest(x, y)")),
        ("max(ARRAY[x, y])", Measure("max", "max", "ARRAY[x, y]")),
        ("count(*) FILTER (WHERE x IN (1, 2))", Measure("count", "count", None, filter="x IN (1, 2)")),
        ("sum(x)FILTER(WHERE ok) AS s", Measure("s", "sum", "x", filter="ok")),
        ("pg_catalog.avg(x)", Measure("avg", "avg", "x")),
        ("(sum(x)) AS s", Measure("s", "sum", "x")),
        ('"sum"(x)', Measure("sum", "sum", "x")),
        ("count(*) AS limit", Measure("limit", "count", None)),
        ('count(*) AS "From"', Measure("From", "count", None)),
        ("sum(CASE WHEN a THEN 1 ELSE 0 END)", Measure("sum", "sum", "CASE WHEN a THEN 1 ELSE 0 END")),
        ("sum(extract(month FROM at))", Measure("sum", "sum", "extract(month FROM at)")),
    ],
)
def test_measure(call: str, expected: Measure) -> None:
    assert measure(call) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "a IS DISTINCT FROM b",
        "a IS NOT DISTINCT FROM b",
        "extract(month FROM at)",
        "EXTRACT(EPOCH FROM (at - timestamp '2024-01-01'))",
        "substring(x from 1 for 2)",
        "trim(both 'x' from name)",
        "overlay(x placing 'y' from 1 for 2)",
        "position('a' in x)",
        "a OPERATOR(pg_catalog.=) b",
        "x::numeric(10,2)",
        "CAST(x AS numeric(10, 2))",
        "ARRAY[1, 2] || a",
        "x[1]",
        "x[1:2][3]",
        "(addr).street",
        "CASE WHEN a > 0 THEN 'from' WHEN b THEN 'x' ELSE NULL END",
        "at AT TIME ZONE 'UTC'",
        'name COLLATE "C"',
        "payload ->> 'kind'",
        "payload #>> '{a,b}'",
        "- x",
        "a BETWEEN 1 AND 2",
        "name LIKE 'a%' ESCAPE '!'",
        "(a, b) < (1, 2)",
        "NOT (a OR b)",
        "x = ANY (ARRAY[1, 2])",
        "1.5e-3 * x + .5",
        "date '2024-01-01' + n",
        "interval '1 day' * n",
        # strings
        "'it''s; from where group by'",
        r"E'it\'s; \\ select'",
        "e'a''b'",
        "U&'d\\0061t'",
        "B'101' | b",
        "X'1F'",
        "'\\'",
        "$$a ; ' select$$",
        "$x$ $$ from $y$ $x$",
        # quoted identifiers
        '"from"',
        '"a""; select"',
        't."Group By"',
        # comments
        "a /* nested /* ' */ ( */ + b",
        "a -- it's (\n + b",
    ],
)
def test_expression_as_key_argument_and_condition(expression: str) -> None:
    """The same text, whichever place it stands in: as key, argument, filter or WHERE."""
    call = sql("max(", expression, ") FILTER (WHERE", expression, ") AS m")
    text = sql("SELECT", expression, "AS k,", call, "FROM t WHERE", expression, "GROUP BY 1")
    assert shape(text) == Shape(
        keys=(Key("k", expression),),
        measures=(Measure("m", "max", expression, filter=expression),),
        source="t",
        alias="t",
        where=expression,
        columns=("k", "m"),
    )


@pytest.mark.parametrize(
    ("item", "reference"),
    [
        ("a", "a"),
        ("a", "A"),
        ("t.a", "a"),
        ("a", "t.a"),
        ("a", "(a)"),
        ("a", "((t.a))"),
        ("a", "1"),
        ("a AS k", "k"),
        ("a AS k", "a"),
        ("a AS k", "1"),
        ('a AS "K k"', '"K k"'),
        ("lower(a) AS k", "lower(a)"),
        ("lower(a) AS k", "LOWER ( a )"),
        ("lower(a) AS k", "(lower(a))"),
        ("(lower(a)) AS k", "lower(a)"),
        ("lower(a)", "lower"),
        ("(addr).street AS k", "(addr).street"),
        ('"From"', '"From"'),
    ],
)
def test_group_by_finds_its_key(item: str, reference: str) -> None:
    assert len(shape(sql("SELECT", item, ", count(*) FROM t GROUP BY", reference)).keys) == 1


def test_canonical_text_knows_no_labels_and_positions() -> None:
    """PostgreSQL prints GROUP BY as expressions, where a bare number or a label would be something else."""
    text = " SELECT t.b AS a, count(*) AS n FROM public.t GROUP BY t.b;"
    assert shape_of("x", text, canonical=True).keys == (Key("a", "t.b"),)
    with pytest.raises(DeclarationError, match="not a group key"):
        shape_of("x", "SELECT t.b AS a, count(*) AS n FROM public.t GROUP BY t.a", canonical=True)


@pytest.mark.parametrize("ending", [";", " ; ;", " -- end", "\n/* end */\n"])
def test_ending(ending: str) -> None:
    assert shape(sql("SELECT count(*) FROM t", ending)).source == "t"


@pytest.mark.parametrize("text", ["count(*/* every row */)", "count(/* every row */*)"])
def test_comment_beside_an_operator(text: str) -> None:
    """A comment ends an operator: PostgreSQL reads `*/*` as `*` and the start of a comment."""
    assert measure(text) == COUNT


def test_line_comment_beside_an_operator() -> None:
    assert keys("SELECT a +-- it's\n b AS k, count(*) FROM t GROUP BY 1") == [("k", "a +-- it's\n b")]


def test_only_ascii_letters_are_folded() -> None:
    """PostgreSQL leaves É alone in a database with a multi-byte encoding."""
    assert shape("SELECT count(*) AS ÉTÉ FROM t").columns == ("ÉtÉ",)


def test_unicode_escapes_in_a_name() -> None:
    assert shape(r'SELECT U&"d\0061ta" AS k, count(*) FROM t GROUP BY 1').columns == ("k", "count")
    assert shape(r'SELECT U&"d\0061ta", count(*) FROM t GROUP BY 1').columns == ("data", "count")


def test_select_all_is_the_default() -> None:
    assert shape("SELECT ALL a, count(*) FROM t GROUP BY a").columns == ("a", "count")
