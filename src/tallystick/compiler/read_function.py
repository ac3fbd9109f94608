"""What the functions that readers call have in common: their parameters, the range that these stand for, the switch.

All of them are STABLE, so each of their steps sees the snapshot of the statement that calls them. A range comes as the
leading values of its ends, NULL for those left out, and is first brought to its first and last item. Then either half
answers: the kept one if the switch says so, else what lies between these two in the source. A TRUNCATE may empty the
source between two steps; so the files that its rows are in are looked at last, when everything has been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.buckets import Buckets
from tallystick.compiler.order import Values
from tallystick.compiler.runs import seek
from tallystick.compiler.text import (
    NO_SQL,
    Statement,
    canonical,
    column,
    comma,
    conjunction,
    dollar_quoted,
    fill,
    literal,
)
from tallystick.declare.names import read_name

SETTINGS = SQL(
    "SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = off SET jit = off"
    " SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off"
    " SET enable_sort = off SET enable_incremental_sort = off"
)
"""Each step is to walk an index from one place on, planned once for a session, whatever its settings are."""
AS_OWNER = SQL("SECURITY DEFINER SET search_path = pg_catalog, pg_temp")


@dataclass(frozen=True)
class Parameter:
    name: str
    type: Composable
    default: Composable | None = None


class Function:
    """A function under construction; parameters are known by their numbers."""

    def __init__(self, buckets: Buckets, read: str, comment: str) -> None:
        self.buckets = buckets
        self.order = buckets.order
        self.layout = buckets.layout
        self.read = read
        self.comment = comment
        self.parameters: list[Parameter] = []

    def take(self, name: str, type_: Composable, default: Composable | None = None) -> SQL:
        self.parameters.append(Parameter(name, type_, default))
        return canonical(f"${len(self.parameters)}")

    def take_namespace(self) -> list[SQL]:
        return [self.take(f"of_{self._name(key)}", self.order.type_of(key)) for key in self.order.namespace]

    def take_arrays(self, prefix: str, keys: Sequence[SQL]) -> list[SQL]:
        """An array for each of some columns."""
        return [self.take(f"{prefix}{self._name(key)}", fill("{t}[]", t=self.order.type_of(key))) for key in keys]

    def take_place(self, prefix: str, *, required: int = 0) -> list[SQL]:
        """The columns of the order; the first `required` have no default."""
        return [
            self.take(f"{prefix}{self._name(key)}", self.order.type_of(key), None if index < required else SQL("NULL"))
            for index, key in enumerate(self.order.position)
        ]

    def take_half(self) -> SQL:
        return self.take("from_source", SQL("boolean"), SQL("false"))

    def statements(
        self,
        returns: Composable,
        body: Composable,
        declarations: Composable = NO_SQL,
        *,
        settings: Composable = SETTINGS,
    ) -> Iterator[Statement]:
        name = self.layout.own(read_name(self.layout.name, self.read))
        text = fill(
            "\n#variable_conflict use_column\nDECLARE\n{declarations}BEGIN\n{body}END\n",
            declarations=declarations, body=body,
        )  # fmt: skip
        takes = comma(
            fill(
                "{name} {type}{default}",
                name=Identifier(each.name), type=each.type,
                default=fill(" DEFAULT {d}", d=each.default) if each.default is not None else SQL(""),
            )
            for each in self.parameters
        )  # fmt: skip
        yield Statement(
            self.comment,
            fill(
                "CREATE FUNCTION {name}({takes}) RETURNS {returns} LANGUAGE plpgsql STABLE {settings}\nAS {body}",
                name=name, takes=takes, returns=returns, settings=settings, body=dollar_quoted(text),
            ),
        )  # fmt: skip
        comment = fill("COMMENT ON FUNCTION {f} IS {c}", f=name, c=literal(self.comment))
        yield Statement("what it gives, for whoever looks at it", comment)
        yield Statement("for those alone who are given it", fill("REVOKE ALL ON FUNCTION {f} FROM PUBLIC", f=name))

    def _name(self, key: SQL) -> str:
        return self.layout.shape.keys[self.layout.keys.index(key)].name


class Range:
    """The parameters of a range, and the steps that bring it to its first item (`fr…`) and its last (`to…`)."""

    def __init__(self, function: Function, namespace: list[SQL]) -> None:
        self.function = function
        self.order = function.order
        self.namespace = namespace
        self.lower = function.take_place("lower_")
        self.upper = function.take_place("upper_")
        self.bounds = function.take("range_bounds", SQL("text"), literal("[]"))
        self.first, self.last = (self.order.variables(prefix) for prefix in ("fr", "to"))

    def declarations(self) -> Composed:
        return self.order.declarations("fr", "to")

    def sought(self, empty: Composable) -> Composed:
        """Steps that find both, or leave with `empty`."""
        buckets = self.function.buckets
        after_lower, after_upper = are_after(self.bounds)
        begin, end = (
            seek(
                self.order, place, buckets.items, self.namespace, cut, after=after, backwards=backwards
            )
            for place, cut, after, backwards in (
                (self.first, self.lower, after_lower, False),
                (self.last, self.upper, after_upper, True),
            )
        )  # fmt: skip
        return fill(
            "{check}{begin}{end}"
            "  IF {first1} IS NULL OR {last1} IS NULL OR {crossed} THEN\n    {empty};\n  END IF;\n",
            check=self._check(), begin=begin, end=end, first1=self.first[0], last1=self.last[0],
            crossed=self.order.is_before(self.first, values=self.last), empty=empty,
        )  # fmt: skip

    def _check(self) -> Composed:
        return fill(
            "  IF {bad} THEN\n    {error};\n  END IF;\n",
            bad=means_nothing(self.lower, self.upper, self.bounds), error=bad_range(self.function),
        )  # fmt: skip

    def from_start(self) -> Composed:
        """No lower end is given."""
        return fill("{v} IS NULL", v=self.lower[0])

    def between(self) -> list[Composed]:
        return self.order.between(self.first, self.last)


def are_after(bounds: Composable) -> tuple[Composed, Composed]:
    """Whether the cut of the lower end, and that of the upper one, lies behind the items that have its values."""
    return fill("(left({b}, 1) = '(')", b=bounds), fill("(right({b}, 1) = ']')", b=bounds)


def means_nothing(lower: Values, upper: Values, bounds: Composable) -> Composed:
    """The bounds are none, or an end leaves out a column before others that it gives."""
    gaps = [
        fill("({b} IS NOT NULL AND {a} IS NULL)", a=ends[index], b=ends[index + 1])
        for ends in (lower, upper)
        for index in range(len(ends) - 1)
    ]
    bad = fill("{b} IS NULL OR {b} NOT IN ('[]', '[)', '(]', '()')", b=bounds)
    return SQL(" OR ").join([bad, *gaps])


def bad_range(function: Function) -> Composed:
    return raised(function, "bounds are one of [], [), (], (), and an end of a range leaves out its last columns only.")


def raised(function: Function, what: str) -> Composed:
    return fill(
        "RAISE invalid_parameter_value USING MESSAGE = {m}", m=literal(f'aggregate "{function.layout.name}": {what}')
    )


def is_kept(buckets: Buckets, half: Composable) -> Composed:
    layout = buckets.layout
    if layout.is_resting:
        return Composed([SQL("false")])
    # The index of the deltas holds hashes of namespaces.
    current = fill("(SELECT {current} FROM {w})", current=layout.is_current(), w=layout.watermark())
    return conjunction([fill("NOT {half}", half=half), layout.is_kept(), current, layout.alive(), buckets.has_files()])


def item_columns(buckets: Buckets) -> list[Composable]:
    """An item as the public view has it."""
    return [*buckets.columns, *(column("s", index) for index in range(1, len(sum_names(buckets)) + 1))]


def sum_names(buckets: Buckets) -> list[str]:
    return [measure.name for measure in buckets.layout.shape.measures if measure.argument is not None]


def public_columns(buckets: Buckets) -> list[tuple[str, Composable]]:
    """Names and types of an item's columns as readers see them."""
    layout = buckets.layout
    found: list[tuple[str, Composable]] = [
        (key.name, canonical(type_.stored)) for key, type_ in zip(layout.shape.keys, layout.snapshot.keys, strict=True)
    ]
    for measure in layout.shape.measures:
        if measure.argument is not None:
            found.append((measure.name, canonical(layout.snapshot.arguments[measure.argument].text)))
    return found


def items_of(buckets: Buckets) -> Composed:
    return fill("SETOF {view}", view=buckets.layout.own(buckets.layout.name))
