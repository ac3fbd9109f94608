"""The declaration of a free-standing counter, its reads and its writes; building one executes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    MetaData,
    Numeric,
    Select,
    SQLColumnExpression,
    Table,
    Text,
    cast,
    func,
    literal,
    select,
)
from sqlalchemy.sql.elements import ColumnElement, quoted_name
from sqlalchemy.sql.functions import Function
from sqlalchemy.types import Integer, TypeEngine

from tallystick.declare.grouped import text_of
from tallystick.declare.names import checked_name, internal_name
from tallystick.declare.ranges import is_expression
from tallystick.declare.reads import DIRECT
from tallystick.errors import DeclarationError, UsageError

SHARDS = 16
MOST_SHARDS = 10_000
LONGEST_KEY_BYTES = 2000
"""A B-tree takes entries of about 2,700 bytes."""

Key = str | SQLColumnExpression[Any]
Number = int | Decimal | SQLColumnExpression[Any]


class CounterReads:
    """The reads of one half. `table` is the view with the columns `key` and `count`, for any query of your own."""

    def __init__(self, name: str, *, table: Table, type_: TypeEngine[Any]) -> None:
        self._counter = name
        self._type = type_
        self.table = table

    def count(self, key: Key) -> ColumnElement[Any]:
        """The count of one key, as a column expression: the sum of all its rows in the snapshot, 0 if it has none.

        Args:
            key: a string, or a column of the query around it.
        Raises:
            UsageError: it is no string, or too long.
        """
        view = self.table.alias()
        found = select(view.c.count).where(view.c.key == _key(self._counter, key).collate("C"))
        return func.coalesce(cast(found.correlate_except(view).scalar_subquery(), self._type), 0, type_=self._type)

    def counts(self, keys: Sequence[str], /) -> Select[Any]:
        """One row (key, count) for each key that is asked for, in that order; 0 for an unknown one.

        Raises:
            UsageError: a key is no string, or too long.
        """
        if isinstance(keys, str):
            raise UsageError(f'counter "{self._counter}": keys={keys!r} is a string.', hint=f"Pass a list: [{keys!r}].")
        wanted = literal([checked_key(self._counter, key) for key in keys], ARRAY(Text))
        asked = func.unnest(wanted).table_valued(Column("key", Text), with_ordinality="position").render_derived()
        return select(asked.c.key, self.count(asked.c.key).label("count")).order_by(asked.c.position)

    def keys(self) -> Select[Any]:
        """All keys that do not count 0, one column, by the order of their bytes."""
        return select(self.table.c.key).order_by(self.table.c.key)


class Counter(CounterReads):
    """A counter of many keys, spread over rows, written by hand in the caller's transaction.

    Each write is a statement to be executed: `conn.execute(holders.add("usdc"))`. A key is a string, or an
    expression of it; a number is an int (or a Decimal, for a numeric counter), or an expression.

    Attributes:
        name: of the counter and of its view.
        schema: of the installation.
        shards: rows that the value of a key is spread over.
        shards_for: the same for single keys.
        is_numeric: values are `numeric`, else `bigint`.
        definition: the direct query as SQL, None without one.
        is_total: the direct query gives one total, under the key "".
        table: the view that readers use: key, count.
        direct: the reads over the source, None without a direct query.
    """

    def __init__(
        self,
        name: str,
        *,
        schema: str,
        shards: int = SHARDS,
        shards_for: Mapping[str, int] | None = None,
        numeric: bool = False,
        direct: Select[*tuple[Any, ...]] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise DeclarationError(f"a counter's name is a string, got {type(name).__name__}.", hint="Pass a word.")
        self.name = checked_name(name)
        self.schema = schema
        self.shards = _checked_shards(name, "shards", shards)
        if not isinstance(shards_for, Mapping | None):
            raise DeclarationError(
                f'counter "{name}": shards_for is a mapping of keys to numbers, got {type(shards_for).__name__}.',
                hint='Write it like shards_for={"hot": 100}.',
            )
        self.shards_for = {
            checked_key(name, key): _checked_shards(name, f"shards_for[{key!r}]", number)
            for key, number in (shards_for or {}).items()
        }
        if not isinstance(numeric, bool):
            raise DeclarationError(f'counter "{name}": numeric is True or False, got {numeric!r}.', hint="Pass one.")
        self.is_numeric = numeric
        self.definition = _direct_text(name, direct) if direct is not None else None
        self.is_total = direct is not None and len(direct.selected_columns) == 1
        type_: TypeEngine[Any] = Numeric() if numeric else BigInteger()
        kept = _view(name, schema, type_)
        super().__init__(name, table=kept, type_=type_)
        self.direct: CounterReads | None = None
        if direct is not None:
            source = _view(internal_name(name, "direct"), schema, type_)
            kept.info[DIRECT] = source
            self.direct = CounterReads(name, table=source, type_=type_)

    def add(self, key: Key, n: Number = 1) -> Select[Any]:
        """Add n, which may be negative. It waits for no other transaction, and fails for none.

        The number goes into a row that nobody holds, or into a new one. At READ COMMITTED that is any free row of the
        key; above it, where a row that somebody changed since the snapshot cannot be changed any more, a row of the
        transaction's own.

        Raises:
            UsageError: key or number cannot be had.
        PostgreSQL's own errors: 22003 where the count would pass a bigint, 42704 where the counter is not installed.
        Two transactions that pass it together are told by the reads, until something is subtracted.
        """
        return self._call("counter_add", _key(self.name, key), self._number(n))

    def subtract(self, key: Key, n: Number = 1) -> Select[Any]:
        """Add -n."""
        added = cast(n, Numeric) * -1 if is_expression(n) else literal(-self._checked_number(n), Numeric)
        return self._call("counter_add", _key(self.name, key), added)

    def inc(self, key: Key) -> Select[Any]:
        """Add 1."""
        return self.add(key)

    def dec(self, key: Key) -> Select[Any]:
        """Subtract 1."""
        return self.subtract(key)

    def add_many(self, numbers: Mapping[str, int | Decimal]) -> Select[Any]:
        """Add to several keys in one statement, by the order of their bytes; none for an empty mapping.

        Raises:
            UsageError: a key or a number cannot be had.
        """
        if not isinstance(numbers, Mapping):
            raise UsageError(
                f'counter "{self.name}": add_many takes a mapping of keys to numbers, got {type(numbers).__name__}.',
                hint='Write it like add_many({"a": 1, "b": -2}).',
            )
        keys = [checked_key(self.name, key) for key in numbers]
        added = [self._checked_number(n) for n in numbers.values()]
        return self._call("counter_add_many", literal(keys, ARRAY(Text)), literal(added, ARRAY(Numeric)))

    def set(self, key: Key, n: Number) -> Select[Any]:
        """Make the count n, whatever it was.

        Sets and resets of one key wait for each other until the end of the transaction, and for a backfill of the
        counter; two transactions that set several keys in opposite orders can deadlock, so set them in one order. Adds
        wait for nothing. At READ COMMITTED the order is that of what the statement sees once it no longer waits:
        whatever was committed by then, or added before in the same transaction, is replaced; whatever commits later is
        added to n, however long ago it was written. Of two overlapping sets the later one stands.

        At REPEATABLE READ and above, the order is that of the transaction's snapshot: adds that it does not see are
        added to n, and if another set or a backfill has committed since, the statement fails with 40001, to be tried
        again.

        Raises:
            UsageError: key or number cannot be had.
        """
        return self._call("counter_set", _key(self.name, key), self._number(n))

    def reset(self, key: Key) -> Select[Any]:
        """Remove a key: set it to 0, which is what an unknown key counts. Rows of others are offset, not awaited."""
        return self._call("counter_set", _key(self.name, key), literal(0, Numeric))

    def rebalance(self, key: Key) -> Select[Any]:
        """Spread the value of a key evenly over its shards and remove rows beyond them; the count stays what it is.

        Rows that other transactions hold stay as they are. At REPEATABLE READ and above it fails with 40001 if a row
        was changed since the snapshot.
        """
        return self._call("counter_rebalance", _key(self.name, key))

    def estimate(self, key: Key, *, shards_read: int = 1) -> ColumnElement[Any]:
        """The sum of some shards of a key, chosen at random, scaled up to all; as a column expression.

        Args:
            shards_read: 1 to the number of shards; what is beyond is taken for the nearest. All of them give the count.
        Raises:
            UsageError: it is no integer.
        """
        if type(shards_read) is not int:
            raise UsageError(
                f'counter "{self.name}": shards_read is an int, got {shards_read!r}.', hint="Pass a number of shards."
            )
        read = max(1, min(shards_read, MOST_SHARDS))
        found = self._function("counter_estimate", _key(self.name, key), literal(read, Integer))
        return cast(found, self._type)

    @property
    def fingerprint(self) -> str:
        """What tells two declarations apart: a SHA-256, in hexadecimal."""
        said = [self.is_numeric, self.shards, sorted(self.shards_for.items()), self.definition]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Counter {self.schema}.{self.name}>"

    def _call(self, function: str, *arguments: ColumnElement[Any]) -> Select[Any]:
        return select(self._function(function, *arguments))

    def _function(self, function: str, *arguments: ColumnElement[Any]) -> Function[Any]:
        # SQLAlchemy quotes the schema of a function only where the function's own name says that it is to be quoted.
        name = quoted_name(function, quote=True)
        return Function(name, literal(self.name, Text), *arguments, packagenames=(self.schema,))

    def _number(self, n: Number) -> ColumnElement[Any]:
        if is_expression(n):
            return cast(n, Numeric)
        return literal(self._checked_number(n), Numeric)

    def _checked_number(self, n: object) -> int | Decimal:
        if isinstance(n, int) and not isinstance(n, bool):
            return n
        if self.is_numeric and isinstance(n, Decimal) and n.is_finite():
            return n
        if self.is_numeric:
            expected, hint = "an int or a finite Decimal", 'Pass an exact number, such as 3 or Decimal("0.5").'
        else:
            expected, hint = "an int", "Pass an int, or declare the counter with numeric=True."
        raise UsageError(f'counter "{self.name}": expected {expected}, got {n!r}.', hint=hint)


def checked_key(counter: str, key: object) -> str:
    """The key, if a counter may have it.

    Raises:
        UsageError: it is no string, longer than 2,000 bytes, or not to be written in UTF-8 without NUL.
    """
    if not isinstance(key, str):
        raise UsageError(f'counter "{counter}": a key is a string, got {key!r}.', hint="Pass str(…) of it.")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError(f'counter "{counter}": the key {key!r} is no text.', hint="Pass whole characters.") from None
    if "\0" in key:
        raise UsageError(f'counter "{counter}": the key {key!r} holds a NUL.', hint="PostgreSQL's text takes none.")
    if size > LONGEST_KEY_BYTES:
        raise UsageError(
            f'counter "{counter}": the key {key[:20]!r}… has {size:,} bytes, at most {LONGEST_KEY_BYTES:,} are taken.',
            hint="Pass a hash of it.",
        )
    return key


def _key(counter: str, key: object) -> ColumnElement[Any]:
    return cast(key, Text) if is_expression(key) else literal(checked_key(counter, key), Text)


def _checked_shards(name: str, what: str, number: object) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_SHARDS:
        raise DeclarationError(
            f'counter "{name}": {what} is a number from 1 to {MOST_SHARDS:,}, got {number!r}.',
            hint=f"The default is {SHARDS}.",
        )
    return number


def _direct_text(name: str, direct: object) -> str:
    if not isinstance(direct, Select):
        raise DeclarationError(
            f'counter "{name}": direct is a Select, got {type(direct).__name__}.',
            hint="Pass sqlalchemy.select(total) or select(key, total).group_by(key).",
        )
    columns = len(direct.selected_columns)
    if columns not in (1, 2):
        raise DeclarationError(
            f'counter "{name}": direct has {columns} columns.',
            hint="Select one total, or a key and its total with GROUP BY.",
        )
    return text_of(name, direct)


def _view(name: str, schema: str, type_: TypeEngine[Any]) -> Table:
    return Table(name, MetaData(), Column("key", Text), Column("count", type_), schema=schema)
