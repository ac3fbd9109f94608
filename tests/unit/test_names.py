"""Names of aggregates and of their objects."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.declare.names import LIMIT_BYTES, checked_name, internal_name
from tallystick.errors import DeclarationError

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=63)


@pytest.mark.parametrize("name", ["m", "messages_by_chat", "_m_", "Messages", 'by "chat"', "a.b", "select", "é" * 31])
def test_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("", "An aggregate needs a name.", "Pass a word such as messages_by_chat."),
        ("a\0b", "An aggregate needs a name.", "Pass a word such as messages_by_chat."),
        ("a" * 64, f'aggregate "{"a" * 64}": its name has 64 bytes, PostgreSQL takes 63.', "Shorten it."),
        ("é" * 32, f'aggregate "{"é" * 32}": its name has 64 bytes, PostgreSQL takes 63.', "Shorten it."),
        (
            "a__b",
            'aggregate "a__b": two underscores in a row are kept for the names of its own objects.',
            "Use one underscore.",
        ),
        (
            "__b",
            'aggregate "__b": two underscores in a row are kept for the names of its own objects.',
            "Use one underscore.",
        ),
        ("aggregate", 'aggregate "aggregate": the installation has a table of that name.', "Choose another name."),
        ("reset", 'aggregate "reset": the installation has a table of that name.', "Choose another name."),
        ("layout", 'aggregate "layout": the installation has a table of that name.', "Choose another name."),
        ("epoch", 'aggregate "epoch": the installation has a table of that name.', "Choose another name."),
    ],
)
def test_refused(name: str, message: str, hint: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        checked_name(name)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_internal_names() -> None:
    assert internal_name("messages", "delta") == "messages__delta"


@settings(max_examples=100)
@given(NAMES, NAMES)
def test_internal_names_fit_and_stay_apart(one: str, other: str) -> None:
    """PostgreSQL would cut a longer name without a word, and two names could become one."""
    found = [internal_name(name, suffix) for name in {one, other} for suffix in ("delta", "direct", "facet1")]
    assert all(len(name.encode()) <= LIMIT_BYTES for name in found)
    assert len(set(found)) == len(found)


def test_a_long_name_is_the_same_each_time() -> None:
    assert internal_name("é" * 31, "delta") == "éééééééééééééééééééééééé__6d8ee0a3b743"
