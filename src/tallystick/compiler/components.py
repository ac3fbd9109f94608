"""Which numbers must be kept so that every declared measure can be computed from them.

A *component* is one kept number per group. Three kinds are enough:

- *additive*: a count or a sum; the kept value is state plus deltas, whatever their order;
- *extreme*: the best value of `min`/`max`. A delta carries the best value that came (`i`) and the best that went
  (`d`). While nothing that went reaches the best that is known, that is the answer; otherwise the group is read
  from the source again;
- *facet*: the distinct values of an argument with their number of rows, for `count(DISTINCT …)`; a value counts
  while its number of rows is above zero.

Sums of `numeric` keep finite values and, beside them, a *census*: how many rows were NaN, infinite, and, where an
average needs it, how many finite values there are of each scale. A census is one `numeric` in base 10^12 whose
digits are those counts, so it adds up and takes back like any sum. Scales above 1,000 share a digit because
PostgreSQL never shows more digits of a quotient (NUMERIC_MAX_DISPLAY_SCALE).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as OneOf
from typing import TypeVar

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.guards import guarded, guarded_by
from tallystick.compiler.snapshot import ColumnType, Snapshot
from tallystick.compiler.text import canonical, column, conjunction, fill, filtered, literal
from tallystick.declare.sqltext import Measure, Shape, column_of
from tallystick.errors import DeclarationError

_Part = TypeVar("_Part")
Sign = OneOf["insert", "delete", "change"]
SMALL_INTEGERS = frozenset({"smallint", "integer"})
INTEGERS = SMALL_INTEGERS | {"bigint"}
FLOATS = frozenset({"real", "double precision"})
SUMMABLE = INTEGERS | FLOATS | {"numeric"}
_FINITE = "{x} > '-Infinity'::numeric AND {x} < 'Infinity'::numeric"


@dataclass(frozen=True, slots=True)
class Argument:
    """A column of the row function: an expression over the source row, which fails on none if it is just a column."""

    name: SQL
    expression: Composable
    type: Composable
    can_fail: bool


@dataclass(frozen=True, slots=True)
class Additive:
    """A count (no `value`) or a sum of `value` over the rows that meet `condition`, if there is one."""

    name: SQL
    type: SQL
    condition: Composable | None
    value: Composable | None = None

    def gathered(self, sign: Sign) -> Composed:
        """The change of this component by rows that came, that went, or (with a weight `w`) both."""
        call: Composable = SQL("count(*)") if self.value is None else fill("sum({value})", value=self.value)
        if sign == "change":
            came = filtered(call, self.condition, SQL("w > 0"))
            went = filtered(call, self.condition, SQL("w < 0"))
            return fill("coalesce({came}, 0) - coalesce({went}, 0)", came=came, went=went)
        total = filtered(call, self.condition)
        return total if sign == "insert" else fill("- {total}", total=total)

    def of_row(self, sign: Sign) -> Composed:
        """The same of a single row that came, or that went."""
        value = SQL("1") if self.value is None else self.value
        if self.condition is not None:
            value = fill("CASE WHEN {condition} THEN {value} END", condition=self.condition, value=value)
        return fill("{minus}({value})::{t}", minus=SQL("" if sign == "insert" else "- "), value=value, t=self.type)


@dataclass(frozen=True, slots=True)
class Extreme:
    """The least or greatest value of an argument. `best` and `beats` are the functions of its direction."""

    index: int
    argument: SQL
    type: Composable
    collation: Composable
    condition: Composable | None
    best: SQL
    beats: SQL

    @property
    def is_collated(self) -> bool:
        return self.collation != SQL("")

    @property
    def kept(self) -> SQL:
        return column("m", self.index)

    @property
    def came(self) -> SQL:
        return column("i", self.index)

    @property
    def went(self) -> SQL:
        return column("d", self.index)

    def over(self, *conditions: Composable) -> Composed:
        """The best value of the rows that meet this component's condition and others."""
        # A function's result has its type's default collation, whatever its expression has.
        call = fill("{best}({x}{collation})", best=self.best, x=self.argument, collation=self.collation)
        return filtered(call, self.condition, *conditions)

    def stands(self) -> Composed:
        """True where the best that came is still there for sure, over columns `i…` and `d…`."""
        return fill(
            "({went} IS NULL OR ({came} IS NOT NULL AND {beats}(ROW({came}), ROW({went}))))",
            went=self.went, came=self.came, beats=self.beats,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facet:
    """The distinct values of an argument within each group."""

    index: int
    argument: SQL
    type: Composable
    collation: Composable
    condition: Composable | None

    @property
    def value(self) -> SQL:
        return column("v", self.index)

    @property
    def distinct(self) -> SQL:
        return column("c", self.index)

    def row_value(self) -> Composable:
        if self.condition is None:
            return self.argument
        return fill("CASE WHEN {condition} THEN {x} END", condition=self.condition, x=self.argument)


@dataclass(frozen=True, slots=True)
class Result:
    """A measure as readers see it: its value over the columns of one combined row."""

    value: Composable
    can_rank: bool


@dataclass
class Components:
    """All components of one aggregate, each kept once however many measures need it."""

    arguments: list[Argument] = field(default_factory=list)
    filters: list[Argument] = field(default_factory=list)
    additive: list[Additive] = field(default_factory=list)
    extremes: list[Extreme] = field(default_factory=list)
    facets: list[Facet] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    direct: dict[str, Composable] = field(default_factory=dict)
    """Measures whose direct half is not the declared call, by name: sums over floating point."""


def components_of(aggregate: str, shape: Shape, snapshot: Snapshot, schema: Identifier) -> Components:
    """Derive the components of an aggregate from its canonical shape and the catalog's types.

    Raises:
        DeclarationError: a measure over a type that cannot be kept exactly.
    """
    builder = _Builder(aggregate, snapshot, schema, guarded_by(shape))
    for measure, result_type in zip(shape.measures, snapshot.measures, strict=True):
        builder.add(measure, result_type)
    return builder.components


class _Builder:
    def __init__(self, aggregate: str, snapshot: Snapshot, schema: Identifier, guards: dict[str, Composable]) -> None:
        self.aggregate = aggregate
        self.guards = guards
        self.types = snapshot.arguments
        self.schema = schema
        self.components = Components()

    def add(self, measure: Measure, result: ColumnType) -> None:
        value = fill("({value})::{type}", value=self._value(measure, result), type=canonical(result.text))
        self.components.results.append(Result(value, self._can_rank(measure)))

    def _can_rank(self, measure: Measure) -> bool:
        """No value of the measure is too wide for an index or fails to be computed, which would fail the fold."""
        if measure.argument is None or measure.function in ("count", "bool_and", "bool_or", "every"):
            return True
        kind = self.types[measure.argument]
        if measure.function in ("min", "max") and kind.fixed_width:
            return True
        return kind.base in INTEGERS or (kind.base == "numeric" and kind.scale is not None)

    def _value(self, measure: Measure, result: ColumnType) -> Composable:
        condition = self._condition(measure.filter)
        if measure.argument is None:
            return self._total(self._count(condition) if condition else SQL("n"))
        kind = self.types[measure.argument]
        if measure.function in ("min", "max"):
            return self._extreme(measure, kind, condition)
        if measure.function in ("count", "bool_and", "every", "bool_or"):
            return self._counted(measure, kind, condition)
        if kind.base not in SUMMABLE:
            raise DeclarationError(
                f'aggregate "{self.aggregate}": {measure.function}({measure.argument}) of {kind.base} cannot be kept.',
                hint="Sums are kept of integers, numeric and floating point; for intervals use extract(epoch from …).",
            )
        return self._summed(measure, kind, condition, result)

    def _counted(self, measure: Measure, kind: ColumnType, condition: Composable | None) -> Composable:
        x = self._argument(measure.argument, kind)
        present = _and(condition, fill("{x} IS NOT NULL", x=x))
        if measure.distinct:
            facets = self.components.facets
            new = Facet(len(facets) + 1, x, canonical(kind.base), _collation(kind), condition)
            return self._total(_known(facets, new, ("argument", "condition")).distinct)
        if measure.function == "count":
            return self._total(self._count(present))
        counted = self._count(present)
        true = self._count(_and(condition, x))
        test = SQL("{true} > 0") if measure.function == "bool_or" else SQL("{true} = {counted}")
        return _unless_none(counted, test.format(true=true, counted=counted))

    def _extreme(self, measure: Measure, kind: ColumnType, condition: Composable | None) -> Composable:
        x = self._argument(measure.argument, kind)
        greatest = measure.function == "max"
        extremes = self.components.extremes
        new = Extreme(
            len(extremes) + 1, x, canonical(kind.base), _collation(kind), condition,
            best=SQL("max") if greatest else SQL("min"),
            beats=SQL("record_gt") if greatest else SQL("record_lt"),
        )  # fmt: skip
        return _known(extremes, new, ("argument", "condition", "best")).kept

    def _summed(
        self, measure: Measure, kind: ColumnType, condition: Composable | None, result: ColumnType
    ) -> Composable:
        if kind.base in FLOATS:
            self.components.direct[measure.name] = self._float_direct(measure, result)
        x = self._argument(measure.argument, kind, summed=True)
        small = kind.base in SMALL_INTEGERS
        special = kind.base not in INTEGERS
        finite = _and(condition, fill(_FINITE, x=x)) if special else condition
        counted = self._count(_and(condition, fill("{x} IS NOT NULL", x=x)))
        total: Composable = self._sum(SQL("bigint") if small else SQL("numeric"), x, finite)
        scales = kind.base == "numeric" and kind.scale is None and measure.function != "sum"
        census = self._census(x, condition, scales=scales) if special else SQL("NULL::numeric")
        scale = self._scale(kind, census)
        if measure.function in ("sum", "avg"):
            if measure.function == "avg":
                exact = fill("trim_scale({t})", t=total) if scale is None else fill("round({t}, {s})", t=total, s=scale)
                total = fill("{exact} / {counted}", exact=exact, counted=counted)
            if special:
                total = fill("{schema}.with_specials({t}, {census})", schema=self.schema, t=total, census=census)
            return _unless_none(counted, self._nearest(total, result))
        squared = fill("{x}::numeric * {x}", x=x)
        squares = self._sum(SQL("numeric"), squared, finite)
        spread = self._spread(
            measure.function,
            counted=counted,
            total=fill("{schema}.with_specials({t}::numeric, {census})", schema=self.schema, t=total, census=census),
            squares=squares,
            scale=SQL("NULL::integer") if scale is None else scale,
        )
        return self._nearest(spread, result)

    def _spread(
        self, function: str, *, counted: Composable, total: Composable, squares: Composable, scale: Composable
    ) -> Composed:
        """Variance or standard deviation; a `scale` of NULL takes the totals' own shortest scales."""
        return fill(
            "{schema}.{helper}({counted}, {total}, {squares}, {scale}, {sample})",
            schema=self.schema,
            helper=Identifier("deviation" if function.startswith("stddev") else "variance"),
            counted=fill("coalesce({counted}, 0)", counted=counted), total=total, squares=squares, scale=scale,
            sample=SQL("false") if function.endswith("_pop") else SQL("true"),
        )  # fmt: skip

    def _scale(self, kind: ColumnType, census: Composable) -> Composable | None:
        """The scale of PostgreSQL's own running sum: fixed by the type, the widest present, or (floats) none."""
        if kind.base in INTEGERS:
            return literal(0)
        if kind.base in FLOATS:
            return None
        if kind.scale is not None:
            return literal(max(kind.scale, 0))
        return fill("{schema}.widest_scale({census})", schema=self.schema, census=census)

    def _census(self, x: Composable, condition: Composable | None, *, scales: bool) -> Composable:
        one = fill(
            "{schema}.census({x}, {scales})", schema=self.schema, x=x, scales=SQL("true") if scales else SQL("false")
        )
        counts = condition if scales else _and(condition, fill("NOT (" + _FINITE + ")", x=x))
        return self._sum(SQL("numeric"), one, counts)

    def _float_direct(self, measure: Measure, result: ColumnType) -> Composable:
        """Floating point sums as both halves define them: over the shortest decimal text of each value."""
        x = fill("{schema}.shortest({x})", schema=self.schema, x=canonical(measure.argument or ""))
        kept = fill(" FILTER (WHERE {f})", f=canonical(measure.filter)) if measure.filter else SQL("")
        total = fill("sum({x}){kept}", x=x, kept=kept)
        counted = fill("count({x}){kept}", x=x, kept=kept)
        value: Composable
        if measure.function == "sum":
            value = total
        elif measure.function == "avg":
            value = fill("trim_scale({total}) / nullif({counted}, 0)", total=total, counted=counted)
        else:
            squares = fill("sum({x} * {x}){kept}", x=x, kept=kept)
            value = self._spread(
                measure.function, counted=counted, total=total, squares=squares, scale=SQL("NULL::integer")
            )
        return self._nearest(value, result)

    def _nearest(self, value: Composable, result: ColumnType) -> Composable:
        """The floating point result of an exact value, or the value itself if the result is exact too."""
        if result.base not in FLOATS:
            return value
        helper = Identifier("nearest_real" if result.base == "real" else "nearest_double")
        return fill("{schema}.{helper}({value})", schema=self.schema, helper=helper, value=value)

    def _total(self, count: Composable) -> Composed:
        return fill("coalesce({count}, 0)", count=count)

    def _condition(self, text: str | None) -> Composable | None:
        if text is None:
            return None
        filters = self.components.filters
        new = Argument(column("f", len(filters) + 1), canonical(text), SQL("boolean"), can_fail=True)
        return _known(filters, new, ("expression",)).name

    def _argument(self, text: str | None, kind: ColumnType, *, summed: bool = False) -> SQL:
        expression, base = canonical(text or ""), kind.base
        if summed and base in FLOATS:
            base = "numeric"
            cast = fill("(({x})::text)::numeric", x=expression)
        else:
            cast = fill("({x})::{type}", x=expression, type=canonical(base))
        arguments = self.components.arguments
        cast = guarded(cast, self.guards.get(text or ""))
        new = Argument(column("x", len(arguments) + 1), cast, canonical(base), column_of(text or "") is None)
        return _known(arguments, new, ("expression",)).name

    def _count(self, condition: Composable | None) -> SQL:
        return self._additive(Additive(self._next(), SQL("bigint"), condition))

    def _sum(self, type_: SQL, value: Composable, condition: Composable | None) -> SQL:
        return self._additive(Additive(self._next(), type_, condition, value))

    def _next(self) -> SQL:
        return column("a", len(self.components.additive) + 1)

    def _additive(self, new: Additive) -> SQL:
        return _known(self.components.additive, new, ("value", "condition")).name


def _known(parts: list[_Part], new: _Part, same: tuple[str, ...]) -> _Part:
    """The part that is kept already and agrees with `new` in the attributes `same`, else `new`, now kept."""
    for part in parts:
        if all(getattr(part, name) == getattr(new, name) for name in same):
            return part
    parts.append(new)
    return new


def _and(condition: Composable | None, other: Composable) -> Composable:
    return other if condition is None else conjunction([condition, other])


def _unless_none(counted: Composable, value: Composable) -> Composed:
    return fill("CASE WHEN {counted} > 0 THEN {value} END", counted=counted, value=value)


def _collation(kind: ColumnType) -> Composable:
    return fill(" COLLATE {name}", name=canonical(kind.collation)) if kind.collation else SQL("")
