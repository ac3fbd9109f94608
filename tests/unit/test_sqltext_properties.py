"""What holds for every declaration: neither labels nor positions change what is a key, and nothing crashes."""

from contextlib import suppress
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.declare.sqltext import Shape, quote_name, shape_of
from tallystick.errors import DeclarationError

KEYS = [
    "a",
    "t.b",
    '"Quoted c"',
    "lower(d)",
    "extract(month FROM e)",
    "f IS DISTINCT FROM g",
    "CASE WHEN h THEN ',' ELSE 'group by' END",
    "substring(i from 1 for 2)",
    "j::numeric(10, 2)",
    "ARRAY[k, l]",
    "m[1]",
]
MEASURES = ["count(*)", "sum(x)", "max(lower(y)) FILTER (WHERE (z, 1) = ROW(1, 2))"]
WORDS = [
    *("SELECT", "FROM", "WHERE", "GROUP", "BY", "AS", "DISTINCT", "FILTER", "OVER", "ORDER", "ONLY", "JOIN"),
    *("a", "t", "count", "sum", "(", ")", "(", ")", "[", "]", ",", ",", ".", "*", "1"),
    *("'s'", '"q"', "::", "=", "--", "/*", "*/", "'", '"', "$$", ";", "\n"),
]


@dataclass(frozen=True)
class Item:
    """An entry of a SELECT list; `reference` is how GROUP BY names it, None for a measure."""

    expression: str
    label: str | None
    reference: str | None


@st.composite
def items(draw: st.DrawFn) -> list[Item]:
    """Keys and measures in any order, each key referred to by position, label, expression or in parentheses."""
    chosen = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=5))
    measured = draw(st.lists(st.sampled_from(MEASURES), min_size=1, max_size=3))
    made: list[Item] = []
    for position, expression in enumerate(draw(st.permutations([*chosen, *measured])), start=1):
        # A label that is also a column's name would be the column to PostgreSQL, so labels are names of their own.
        label = quote_name(f"label {position}") if expression not in ("a", "t.b") or draw(st.booleans()) else None
        if expression in measured:
            made.append(Item(expression, label, None))
            continue
        spellings = [str(position), expression, f"({expression})", f"(( {expression} ))"]
        made.append(Item(expression, label, draw(st.sampled_from([*spellings, *([label] if label else [])]))))
    return made


def declared(found: list[Item]) -> Shape:
    selected = ", ".join(item.expression + (f" AS {item.label}" if item.label else "") for item in found)
    references = ", ".join(item.reference for item in found if item.reference is not None)
    return shape_of("x", " ".join(["SELECT", selected, "FROM t", "GROUP BY" if references else "", references]))


@settings(max_examples=60)
@given(items())
def test_labels_and_positions_never_change_which_keys_are_found(found: list[Item]) -> None:
    shape = declared(found)
    assert [key.expression for key in shape.keys] == [item.expression for item in found if item.reference]
    assert len(shape.measures) == sum(item.reference is None for item in found)
    plain = declared([Item(item.expression, item.label, item.reference and item.expression) for item in found])
    assert shape == plain


@settings(max_examples=150)
@given(st.lists(st.sampled_from(WORDS), max_size=25))
def test_any_text_is_taken_apart_or_refused(words: list[str]) -> None:
    text = " ".join(["SELECT", *words])
    with suppress(DeclarationError):
        shape = shape_of("x", text)
        assert shape.source in text
        assert all(key.expression in text for key in shape.keys)
