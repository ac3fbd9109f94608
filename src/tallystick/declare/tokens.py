"""Tokens of SQL text by PostgreSQL's lexical rules: strings, names, numbers, operators, parentheses with their depth.

Source: https://www.postgresql.org/docs/current/sql-syntax-lexical.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""
      (?P<space>[ \t\n\r\f\v]+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<string>[eE]'(?:[^'\\]|''|\\.)*' | (?:[bBxXnN]|[uU]&)?'(?:[^']|'')*' | (?P<tag>\$(?:[^\W\d]\w*)?\$).*?(?P=tag))
    | (?P<quoted>(?:[uU]&)?"(?:[^"]|"")*")
    | (?P<number>\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<open>[(\[])
    | (?P<close>[)\]])
    | (?P<punct>::|:=|\.\.|[,;.:]|\$\d+)
    | (?P<operator>(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`?])+)
    """,
    re.VERBOSE | re.DOTALL,
)


_FOLDED = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # PostgreSQL folds no other letters
_ESCAPE = re.compile(r"\\(\\|[0-9a-fA-F]{4}|\+[0-9a-fA-F]{6})")


class LexicalError(ValueError):
    """Text that is not SQL: what, and where it starts."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind, its text (words folded to lower case) and where it stands in the source."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


def tokenize(text: str) -> list[Token]:
    """All tokens but blanks and comments.

    Raises:
        LexicalError: an unknown character, an open string or comment, or parentheses that do not match.
    """
    tokens: list[Token] = []
    position, depth = 0, 0
    while position < len(text):
        found = _TOKEN.match(text, position)
        if found is None:
            raise LexicalError(f"cannot read the SQL at {text[position : position + 20]!r}")
        end = found.end()
        kind = "string" if found["string"] else str(found.lastgroup)
        if kind == "comment":
            end = _comment_end(text, position)
        elif kind != "space":
            depth -= kind == "close"
            folded = found.group().translate(_FOLDED) if kind == "word" else found.group()
            tokens.append(Token(kind, folded, position, end, depth))
            depth += kind == "open"
        position = end
    if depth != 0:
        raise LexicalError("parentheses do not match")
    return tokens


def _comment_end(text: str, start: int) -> int:
    """Comments nest in PostgreSQL."""
    depth = 0
    for mark in re.compile(r"/\*|\*/").finditer(text, start):
        depth += 1 if mark.group() == "/*" else -1
        if depth == 0:
            return mark.end()
    raise LexicalError("a comment is not closed")


def name_of(token: Token) -> str:
    """The name that a word or a quoted identifier stands for."""
    if token.kind != "quoted":
        return token.text
    start = token.text.index('"')
    name = token.text[start + 1 : -1].replace('""', '"')
    if start == 0:
        return name
    return _ESCAPE.sub(lambda found: "\\" if found[1] == "\\" else chr(int(found[1].lstrip("+"), 16)), name)


def split_name(name: str) -> tuple[str, str]:
    """Schema, as it is written, and bare name of what PostgreSQL prints as `schema.name`."""
    schema, _, last = tokenize(name)
    return schema.text, name_of(last)
