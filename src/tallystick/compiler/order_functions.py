"""The functions that give values: `x_count`, `x_sum_…`, `x_rank`, `x_rank_of`."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.buckets import Buckets
from tallystick.compiler.order import Values
from tallystick.compiler.read_function import AS_OWNER, Function, Range, is_kept, raised, sum_names
from tallystick.compiler.runs import rows
from tallystick.compiler.text import Statement, canonical, column, comma, conjunction, fill, literal
from tallystick.declare.names import read_name


def value_functions(buckets: Buckets) -> Iterator[Statement]:
    """Those that give one value each."""
    yield from _count(buckets)
    for index, name in enumerate(sum_names(buckets), start=1):
        yield from _sum(buckets, name, index)
    yield from _rank(buckets)
    yield from _rank_of(buckets)


def _count(buckets: Buckets) -> Iterator[Statement]:
    function = Function(buckets, "count", "Number of items in a range of a namespace's order.")
    span = Range(function, function.take_namespace())
    half = function.take_half()
    rank = buckets.layout.object("rank")
    kept = fill(
        "{rank}({upto}) + 1 - CASE WHEN {all} THEN 0 ELSE {rank}({from_}) END",
        rank=rank, upto=comma([*span.namespace, *span.last]), all=span.from_start(),
        from_=comma([*span.namespace, *span.first]),
    )  # fmt: skip
    items = rows(buckets.order, buckets.items, [buckets.order.position[0]], span.namespace, span.between())
    body = fill(
        "{sought}  IF {is_kept} THEN\n    result := {kept};\n"
        "    IF {has_files} THEN\n      RETURN result;\n    END IF;\n  END IF;\n"
        "  RETURN (SELECT count(*) FROM {items} AS i);\n",
        sought=span.sought(SQL("RETURN 0")), is_kept=is_kept(buckets, half), kept=kept, has_files=buckets.has_files(),
        items=items,
    )  # fmt: skip
    yield from function.statements(
        SQL("bigint"), body, fill("{d}  result bigint;\n", d=span.declarations())
    )  # fmt: skip


def _sum(buckets: Buckets, name: str, index: int) -> Iterator[Statement]:
    layout = buckets.layout
    value, type_ = value_of(buckets, name)
    function = Function(buckets, f"sum_{name}", "Sum over the items in a range of a namespace's order.")
    span = Range(function, function.take_namespace())
    half = function.take_half()
    parts = comma(fill("{e} AS {n}", e=e, n=n) for e, (n, _) in zip(buckets.of_items(), buckets.totals, strict=True))
    kept = fill(
        "SELECT {value} INTO result FROM (SELECT {difference}\n"
        "      FROM {totals}({upto}) AS u, {own} AS o LEFT JOIN LATERAL"
        " (SELECT * FROM {totals}({from_}) AS t WHERE NOT ({all})) AS l ON true) AS c",
        value=value, difference=totals_between(buckets), totals=layout.object("totals"),
        upto=comma([*span.namespace, *span.last]), own=totals_at(buckets, span.namespace, span.last),
        from_=comma([*span.namespace, *span.first]), all=span.from_start(),
    )  # fmt: skip
    source = column("s", index)
    if name in layout.parts.direct:
        # Of floating point, both halves are defined over the shortest decimal text of each value.
        items = rows(buckets.order, buckets.items, buckets.arguments(), span.namespace, span.between())
        items = fill("(SELECT {parts} FROM {items} AS i)", parts=parts, items=items)
        direct: Composable = value
    else:
        items = rows(buckets.order, buckets.items, [source], span.namespace, span.between())
        direct = fill("sum({s})", s=source)
    body = fill(
        "{sought}  IF {is_kept} THEN\n    {kept};\n"
        "    IF {has_files} THEN\n      RETURN coalesce(result, 0);\n    END IF;\n  END IF;\n"
        "  SELECT {direct} INTO result FROM {items} AS i;\n  RETURN coalesce(result, 0);\n",
        sought=span.sought(SQL("RETURN 0")), is_kept=is_kept(buckets, half), kept=kept, has_files=buckets.has_files(),
        items=items, direct=direct,
    )  # fmt: skip
    yield from function.statements(type_, body, fill("{d}  result {t};\n", d=span.declarations(), t=type_))


def totals_at(buckets: Buckets, namespace: Values, place: Values) -> Composed:
    """SELECT: one row of components of the item at a place."""
    parts = comma(fill("{e} AS {n}", e=e, n=n) for e, (n, _) in zip(buckets.of_items(), buckets.totals, strict=True))
    here = conjunction([*buckets.order.in_namespace(namespace), buckets.order.is_at(place)])
    return fill("(SELECT {parts} FROM {items} AS i WHERE {here})", parts=parts, items=buckets.items, here=here)


def totals_between(buckets: Buckets) -> Composed:
    """Components of a range: those before its last item (row `u`), of this item (`o`), less those before it (`l`)."""
    return comma(
        fill("(u.{r} + o.{n} - coalesce(l.{r}, 0))::{t} AS {n}", r=column("r", number), t=type_, n=name)
        for number, (name, type_) in enumerate(buckets.totals, start=1)
    )


def value_of(buckets: Buckets, name: str) -> tuple[Composable, SQL]:
    """A sum as computed from components, and its type."""
    layout = buckets.layout
    number = [measure.name for measure in layout.shape.measures].index(name)
    return layout.parts.results[number].value, canonical(layout.snapshot.measures[number].text)


def _rank(buckets: Buckets) -> Iterator[Statement]:
    layout = buckets.layout
    function = Function(buckets, "rank", 'Number of items before a place; order "desc": behind it.')
    namespace = function.take_namespace()
    place = function.take_place("at_", required=max(1, buckets.ordering.key))
    direction = function.take("in_order", SQL("text"), literal("asc"))
    half = function.take_half()
    nulls = [SQL("NULL")] * len(place)
    body = fill(
        "  IF {place1} IS NULL THEN\n    RETURN NULL;\n  END IF;\n"
        "  CASE {direction}\n"
        "    WHEN 'asc' THEN RETURN {count}({before});\n"
        "    WHEN 'desc' THEN RETURN {count}({behind});\n"
        "    ELSE {error};\n  END CASE;\n",
        place1=place[0], direction=direction, count=layout.own(read_name(layout.name, "count")),
        before=comma([*namespace, *nulls, *place, literal("[)"), half]),
        behind=comma([*namespace, *place, *nulls, literal("(]"), half]),
        error=raised(function, 'the order is "asc" or "desc".'),
    )  # fmt: skip
    yield from function.statements(SQL("bigint"), body, settings=AS_OWNER)


def _rank_of(buckets: Buckets) -> Iterator[Statement]:
    layout = buckets.layout
    function = Function(buckets, "rank_of", "Number of items before the item of a primary key, NULL if it is no item.")
    names = {key.name: own for key, own in zip(layout.shape.keys, layout.keys, strict=True)}
    columns = [names[name] for name in buckets.ordering.primary_key]
    key = [
        function.take(f"of_{name}", buckets.order.type_of(own))
        for name, own in zip(buckets.ordering.primary_key, columns, strict=True)
    ]
    direction = function.take("in_order", SQL("text"), literal("asc"))
    half = function.take_half()
    body = fill(
        "  RETURN (SELECT {rank}({place}, {direction}, {half}) FROM {items} AS i WHERE {this});\n",
        rank=layout.own(read_name(layout.name, "rank")), place=comma(buckets.columns), direction=direction, half=half,
        items=buckets.items,
        this=conjunction(buckets.order.compare(own, "=", value) for own, value in zip(columns, key, strict=True)),
    )  # fmt: skip
    yield from function.statements(SQL("bigint"), body)
