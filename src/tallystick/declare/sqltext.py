"""Take a `SELECT … FROM one table … GROUP BY` apart without changing a character of its expressions.

The same code reads a declaration (to refuse at once what its shape rules out) and the canonical text that
PostgreSQL gives back from `pg_get_viewdef` (from which everything is compiled). It understands structure only:
tokens, parentheses, clauses, commas. Expressions stay opaque slices of the text, so that an operator, a cast or a
function keeps exactly the meaning that PostgreSQL gave it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallystick.declare.names import LIMIT_BYTES
from tallystick.declare.tokens import LexicalError, Token, name_of, tokenize
from tallystick.errors import DeclarationError

AGGREGATES = frozenset(
    [
        "count",
        "sum",
        "avg",
        "min",
        "max",
        "stddev",
        "stddev_samp",
        "stddev_pop",
        "variance",
        "var_samp",
        "var_pop",
        "bool_and",
        "every",
        "bool_or",
    ]
)

_CLAUSES = ("select", "from", "where", "group by")
_REFUSED_CLAUSES = {
    "having": "a HAVING clause",
    "order by": "an ORDER BY clause",
    "limit": "a LIMIT clause",
    "offset": "an OFFSET clause",
    "fetch": "a FETCH clause",
    "for": "a row-locking clause",
    "window": "a WINDOW clause",
    "union": "a set operation (UNION)",
    "intersect": "a set operation (INTERSECT)",
    "except": "a set operation (EXCEPT)",
    "into": "SELECT INTO",
}
_INSTEAD = {
    "having": "Keep every group and filter when reading: SELECT … FROM the view WHERE ….",
    "order by": "Order when reading, or use .top().",
    "limit": "Limit when reading, or use .top().",
    "offset": "Page when reading.",
    "union": "Declare one aggregate per SELECT.",
    "intersect": "Declare one aggregate per SELECT.",
    "except": "Declare one aggregate per SELECT.",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A group key: its name in the result and its expression."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class Measure:
    """One aggregate call: its name in the result, lower-case function, argument (None for `*`), filter."""

    name: str
    function: str
    argument: str | None
    distinct: bool = False
    filter: str | None = None


@dataclass(frozen=True, slots=True)
class Shape:
    """A grouped SELECT taken apart. `columns` are the result's names in their declared order."""

    keys: tuple[Key, ...]
    measures: tuple[Measure, ...]
    source: str
    alias: str
    where: str | None
    columns: tuple[str, ...]


def shape_of(aggregate: str, text: str, *, canonical: bool = False) -> Shape:
    """Take a SELECT apart.

    Args:
        aggregate: name of the aggregate, for messages only.
        text: one SELECT over one table, with or without a closing semicolon.
        canonical: the text comes from `pg_get_viewdef`, whose GROUP BY holds expressions only. In other text an
            entry may also be a result name or a position.
    Raises:
        DeclarationError: a construct that cannot be kept, named with the reason and what to write instead.
    """
    return _Reader(aggregate, text, canonical=canonical).shape()


def quote_name(name: str) -> str:
    """Quote an identifier for PostgreSQL."""
    return '"' + name.replace('"', '""') + '"'


class _Reader:
    def __init__(self, aggregate: str, text: str, *, canonical: bool = True) -> None:
        self.aggregate = aggregate
        self.canonical = canonical
        self.text = text
        try:
            self.tokens = tokenize(text)
        except LexicalError as error:
            raise self.refuse(str(error), "Check quotes and parentheses.") from error
        while self.tokens and self.tokens[-1].text == ";":
            self.tokens.pop()

    def refuse(self, what: str, instead: str) -> DeclarationError:
        return DeclarationError(f'aggregate "{self.aggregate}": {what}.', hint=instead)

    def shape(self) -> Shape:
        clauses = self._clauses()
        source, alias = self._source(clauses["from"])
        group_by = [self._slice(item) for item in _split(clauses.get("group by", []))]
        self._refuse_grouping_sets(clauses.get("group by", []))
        keys: list[Key] = []
        measures: list[Measure] = []
        columns: list[str] = []
        matched: set[int] = set()
        for position, item in enumerate(_split(clauses["select"]), start=1):
            expression, name = self._labelled(item)
            if name in columns:
                raise self.refuse(
                    f'two result columns are called "{name}"', "Give each its own name with AS or .label()."
                )
            if len(name.encode()) > LIMIT_BYTES:
                raise self.refuse(
                    f'result column "{name}" has {len(name.encode())} bytes, PostgreSQL takes {LIMIT_BYTES}',
                    "Shorten it with AS or .label().",
                )
            columns.append(name)
            found = self._group_item(expression, name, position, group_by)
            if found is not None:
                matched.add(found)
                keys.append(Key(name, self._slice(expression)))
            else:
                measures.append(self._measure(expression, name))
        for index, item_text in enumerate(group_by):
            if index not in matched:
                raise self.refuse(
                    f"group key {item_text} is not selected", "Add it to the SELECT list: readers find groups by it."
                )
        if not measures:
            raise self.refuse("nothing is aggregated", "Add at least one measure, for example count(*).")
        where = self._slice(clauses["where"]) if clauses.get("where") else None
        return Shape(tuple(keys), tuple(measures), source, alias, where, tuple(columns))

    def _clauses(self) -> dict[str, list[Token]]:
        if not self.tokens or self.tokens[0].text != "select":
            first = self.tokens[0].text.upper() if self.tokens else "nothing"
            raise self.refuse(
                f"expected one SELECT, got {first}", "Declare a plain SELECT … FROM one table … GROUP BY."
            )
        clauses: dict[str, list[Token]] = {}
        current: list[Token] = []
        previous: Token | None = None
        position = 0
        while position < len(self.tokens):
            token = self.tokens[position]
            if token.text == "*" and previous is not None and previous.text == ".":
                raise self.refuse("a whole row cannot be kept", "Name its columns.")
            if token.text == ";":
                raise self.refuse("found a second statement", "Declare one SELECT.")
            if token.kind == "word" and token.text == "select" and position > 0:
                raise self.refuse(
                    "a subquery cannot be kept", "Keep the aggregate over its table and join when reading."
                )
            if token.kind == "word" and token.text == "over" and previous is not None and previous.text == ")":
                raise self.refuse("a window function cannot be kept", "Apply window functions when reading.")
            clause = self._clause_at(position, previous)
            previous = token
            if clause is None:
                current.append(token)
                position += 1
                continue
            if clause in _REFUSED_CLAUSES:
                raise self.refuse(
                    f"{_REFUSED_CLAUSES[clause]} cannot be kept",
                    _INSTEAD.get(clause, "Declare a plain SELECT … FROM one table … GROUP BY."),
                )
            if clause in clauses:
                raise self.refuse(f"found {clause.upper()} twice", "Declare one SELECT.")
            current = clauses.setdefault(clause, [])
            position += 2 if " " in clause else 1
        if "from" not in clauses:
            raise self.refuse("there is no FROM clause", "Name the table whose rows are aggregated.")
        return clauses

    def _clause_at(self, position: int, previous: Token | None) -> str | None:
        token = self.tokens[position]
        if token.kind != "word" or token.depth != 0 or (previous is not None and previous.text in (".", "as")):
            return None
        if token.text in ("group", "order"):
            following = self.tokens[position + 1] if position + 1 < len(self.tokens) else None
            return f"{token.text} by" if following is not None and following.text == "by" else None
        if token.text in _CLAUSES or token.text in _REFUSED_CLAUSES:
            # "a IS DISTINCT FROM b" holds a FROM that opens no clause
            if token.text == "from" and previous is not None and previous.text == "distinct":
                return None
            return token.text
        return None

    def _source(self, tokens: Sequence[Token]) -> tuple[str, str]:
        for token in tokens:
            if token.text in ("join", ","):
                raise self.refuse(
                    "a join cannot be kept yet", "Declare the aggregate over one table and join when reading."
                )
            if token.kind == "open":
                raise self.refuse(f"FROM {self._slice(tokens)} is not a table", "Declare the aggregate over one table.")
        names = [token for token in tokens if not (token.kind == "word" and token.text in ("as", "only"))]
        if any(token.text == "only" and token.kind == "word" for token in tokens):
            raise self.refuse("FROM ONLY cannot be kept", "Declare the aggregate over the whole table.")
        length = 1
        while length + 1 < len(names) and names[length].text == ".":
            length += 2
        if not names:
            raise self.refuse("there is no table after FROM", "Name the table whose rows are aggregated.")
        if len(names) > length + 1 or any(t.kind not in ("word", "quoted") for t in names[:length:2]):
            raise self.refuse(f"FROM {self._slice(tokens)} is not one table", "Declare the aggregate over one table.")
        alias = names[length] if len(names) > length else names[length - 1]
        return self._slice(names[:length]), name_of(alias)

    def _refuse_grouping_sets(self, tokens: Sequence[Token]) -> None:
        for index, token in enumerate(tokens):
            following = tokens[index + 1] if index + 1 < len(tokens) else None
            opens = following is not None and following.kind == "open"
            sets = following is not None and following.text == "sets"
            if token.kind == "word" and token.text in ("cube", "rollup") and opens:
                raise self.refuse(f"{token.text.upper()} cannot be kept", "Declare one aggregate per grouping.")
            if token.kind == "word" and token.text == "grouping" and sets:
                raise self.refuse("GROUPING SETS cannot be kept", "Declare one aggregate per grouping.")
            if token.depth == 0 and token.kind == "open" and following is not None and following.kind == "close":
                raise self.refuse("an empty grouping set cannot be kept", "Leave GROUP BY out for one row of totals.")

    def _labelled(self, item: Sequence[Token]) -> tuple[list[Token], str]:
        tokens = list(item)
        if tokens and tokens[0].text == "distinct" and tokens[0].kind == "word":
            raise self.refuse("SELECT DISTINCT cannot be kept", "Use GROUP BY; its groups are distinct already.")
        if tokens and tokens[0].text == "all" and tokens[0].kind == "word":
            tokens = tokens[1:]
        if not tokens:
            raise self.refuse("an entry of the SELECT list is empty", "Check the commas.")
        if len(tokens) > 2 and tokens[-2].text == "as" and tokens[-2].kind == "word":
            return tokens[:-2], name_of(tokens[-1])
        if _is_column(tokens):
            return tokens, name_of(tokens[-1])
        if any(t.text == "*" and t.depth == 0 for t in tokens[-1:]):
            raise self.refuse("SELECT * cannot be kept", "Name the group keys and the measures.")
        name = self._function_name(tokens)
        if name is None:
            raise self.refuse(f"{self._slice(tokens)} has no name", "Name it with AS or .label().")
        return tokens, name

    def _function_name(self, tokens: Sequence[Token]) -> str | None:
        """The name that PostgreSQL gives to an unlabelled function call."""
        opening = next((i for i, t in enumerate(tokens) if t.kind == "open"), None)
        if opening is None or opening == 0 or tokens[opening - 1].kind not in ("word", "quoted"):
            return None
        closing = next((i for i, t in enumerate(tokens) if i > opening and t.kind == "close" and t.depth == 0), None)
        rest = tokens[closing + 1 :] if closing is not None else []
        return name_of(tokens[opening - 1]) if not rest or rest[0].text == "filter" else None

    def _group_item(self, expression: Sequence[Token], name: str, position: int, group_by: Sequence[str]) -> int | None:
        candidates = {self._bare(expression)}
        if not self.canonical:
            candidates |= {quote_name(name), name, str(position)}
        for index, item in enumerate(group_by):
            if _strip(_Reader(self.aggregate, item)) in candidates:
                return index
        return None

    def _bare(self, tokens: Sequence[Token]) -> str:
        return _strip(_Reader(self.aggregate, self._slice(tokens)))

    def _measure(self, tokens: Sequence[Token], name: str) -> Measure:
        text = self._slice(tokens)
        inner = _unwrap(list(tokens))
        start = 2 if len(inner) > 3 and inner[1].text == "." and inner[3].kind == "open" else 0
        if start and name_of(inner[0]) != "pg_catalog":
            raise self.refuse(
                f"{text} is a function of the schema {name_of(inner[0])}",
                "Use PostgreSQL's own aggregates, if need be over a cast, as in min(x::text).",
            )
        call = inner[start:]
        if len(call) < 3 or call[0].kind not in ("word", "quoted") or call[1].kind != "open":
            raise self._not_a_measure(text)
        function = name_of(call[0])
        level = call[1].depth
        closing = next(i for i, t in enumerate(call) if i > 1 and t.kind == "close" and t.depth == level)
        condition = self._filter(call[closing + 1 :], text)
        if function not in AGGREGATES:
            if any(t.text in AGGREGATES for t in call[2:closing]) or condition is not None:
                raise self._not_a_measure(text)
            raise self.refuse(
                f"{text} is neither a group key nor an aggregate that can be kept",
                "Add it to GROUP BY if it is a plain expression;"
                f" the aggregates kept are {', '.join(sorted(AGGREGATES))}.",
            )
        arguments = call[2:closing]
        distinct = bool(arguments) and arguments[0].text in ("distinct", "all") and arguments[0].kind == "word"
        if distinct:
            distinct = arguments[0].text == "distinct"
            arguments = arguments[1:]
        if any(t.text == "order" and t.depth == level + 1 for t in arguments):
            raise self.refuse(
                f"{text} orders its input", "These aggregates do not depend on order; leave ORDER BY out."
            )
        if len(list(_split(arguments))) > 1:
            raise self.refuse(f"{text} has several arguments", "Use an aggregate of one argument.")
        if not arguments:
            raise self.refuse(f"{text} has no argument", "Write count(*) or name a column.")
        if len(arguments) == 1 and arguments[0].text == "*":
            return Measure(name, function, None, filter=condition)
        if distinct and function != "count":
            if function not in ("min", "max", "bool_and", "bool_or", "every"):
                raise self.refuse(f"{text} cannot be kept", "DISTINCT is kept for count(DISTINCT …) only.")
            distinct = False  # duplicates change nothing in these
        return Measure(name, function, self._slice(arguments), distinct, condition)

    def _filter(self, tokens: Sequence[Token], text: str) -> str | None:
        if not tokens:
            return None
        if [t.text for t in tokens[:3]] != ["filter", "(", "where"] or tokens[-1].kind != "close":
            raise self._not_a_measure(text)
        inside = next(i for i, t in enumerate(tokens) if t.kind == "close" and t.depth == tokens[1].depth)
        if inside != len(tokens) - 1:
            raise self._not_a_measure(text)
        return self._slice(tokens[3:-1])

    def _not_a_measure(self, text: str) -> DeclarationError:
        return self.refuse(
            f"{text} is not a group key, and not one aggregate call alone",
            "Add it to GROUP BY, or keep the aggregates themselves and combine them when reading.",
        )

    def _slice(self, tokens: Sequence[Token]) -> str:
        return self.text[tokens[0].start : tokens[-1].end] if tokens else ""


def column_of(expression: str) -> str | None:
    """The column that an expression names, with or without its table; None if it is more than that."""
    tokens = tokenize(expression)
    return name_of(tokens[-1]) if tokens and _is_column(tokens) else None


def _is_column(tokens: Sequence[Token]) -> bool:
    return all(t.kind in ("word", "quoted") if i % 2 == 0 else t.text == "." for i, t in enumerate(tokens))


def _split(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Split at the commas of the outermost level."""
    if not tokens:
        return
    level = min(token.depth for token in tokens)
    item: list[Token] = []
    for token in tokens:
        if token.text == "," and token.depth == level:
            yield item
            item = []
        else:
            item.append(token)
    yield item


def _unwrap(tokens: list[Token]) -> list[Token]:
    """Drop parentheses that enclose the whole."""
    while len(tokens) > 2 and tokens[0].text == "(" and tokens[-1].text == ")":
        level = tokens[0].depth
        if any(t.kind == "close" and t.depth == level for t in tokens[:-1]):
            break
        tokens = tokens[1:-1]
    return tokens


def _strip(reader: _Reader) -> str:
    """One spelling for one expression: no outer parentheses, tokens joined by single blanks, bare column names."""
    tokens = _unwrap(reader.tokens)
    if _is_column(tokens):
        tokens = tokens[-1:]
    return " ".join(token.text for token in tokens)
