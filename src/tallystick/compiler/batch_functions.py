"""The functions that give a value for each of many ranges: `x_count_many`, `x_sum_…_many`.

One statement answers all of them: its plan is started once, where the functions of one range start theirs each time.
"""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.buckets import Buckets, before_place
from tallystick.compiler.order_functions import totals_at, totals_between, value_of
from tallystick.compiler.read_function import (
    Function,
    are_after,
    bad_range,
    is_kept,
    means_nothing,
    sum_names,
)
from tallystick.compiler.runs import sought
from tallystick.compiler.text import Statement, comma, fill
from tallystick.declare.names import read_name


def batch_functions(buckets: Buckets) -> Iterator[Statement]:
    """Arrays of the same length take the place of each parameter of the function of one range."""
    yield from _many(buckets, "count", SQL("u.r1 + 1 - coalesce(l.r1, 0)"), SQL("bigint"), with_sums=False)
    for name in sum_names(buckets):
        value, type_ = value_of(buckets, name)
        own = totals_at(buckets, _of_query(buckets.order.namespace, "of"), _place(buckets, "t"))
        summed = fill(
            "coalesce((SELECT {value} FROM (SELECT {totals} FROM {own} AS o) AS c), 0)",
            value=value, totals=totals_between(buckets), own=own,
        )  # fmt: skip
        yield from _many(buckets, f"sum_{name}", summed, type_, with_sums=True)


def _of_query(keys: list[SQL], prefix: str) -> list[Composed]:
    """Columns of the row `q` of a query."""
    return [fill("q.{p}_{k}", p=SQL(prefix), k=key) for key in keys]


def _place(buckets: Buckets, row: str) -> list[Composed]:
    return [fill("{row}.{k}", row=SQL(row), k=key) for key in buckets.order.position]


def _many(buckets: Buckets, read: str, value: Composable, type_: SQL, *, with_sums: bool) -> Iterator[Statement]:
    order, layout = buckets.order, buckets.layout
    function = Function(buckets, f"{read}_many", f"The function {read} for many ranges at once, given as arrays.")
    groups = [("of", order.namespace), ("lower", order.position), ("upper", order.position)]
    arrays = [array for prefix, keys in groups for array in function.take_arrays(f"{prefix}_", keys)]
    arrays.append(function.take("range_bounds", SQL("text[]")))
    half = function.take_half()
    names = [fill("{p}_{k}", p=SQL(prefix), k=key) for prefix, keys in groups for key in keys]
    queries = fill(
        "unnest({arrays}) WITH ORDINALITY AS q ({names}, bounds, number)", arrays=comma(arrays), names=comma(names)
    )  # fmt: skip
    namespace, lower, upper = (_of_query(keys, prefix) for prefix, keys in groups)
    first, last = _place(buckets, "f"), _place(buckets, "t")
    after_lower, after_upper = are_after(SQL("q.bounds"))
    totals = buckets.totals if with_sums else buckets.totals[:1]
    kept = fill(
        "ARRAY(SELECT CASE WHEN {first1} IS NULL OR {last1} IS NULL OR {crossed} THEN 0 ELSE {value} END\n"
        "    FROM {queries}\n"
        "    LEFT JOIN LATERAL {begin} AS f ON true\n    LEFT JOIN LATERAL {end} AS t ON true\n"
        "    LEFT JOIN LATERAL {upto} AS u ON true\n"
        "    LEFT JOIN LATERAL (SELECT * FROM {from_} AS b WHERE {lower1} IS NOT NULL) AS l ON true\n"
        "    ORDER BY q.number)",
        first1=first[0], last1=last[0], crossed=order.is_before(first, values=last), value=value, queries=queries,
        begin=sought(order, buckets.items, namespace, lower, after=after_lower),
        end=sought(order, buckets.items, namespace, upper, after=after_upper, backwards=True),
        upto=before_place(buckets, namespace, last, totals), from_=before_place(buckets, namespace, first, totals),
        lower1=lower[0],
    )  # fmt: skip
    body = fill(
        "  IF EXISTS (SELECT FROM {queries} WHERE {bad}) THEN\n    {error};\n  END IF;\n"
        "  IF {is_kept} THEN\n    found := {kept};\n"
        "    IF {has_files} THEN\n"
        "      RETURN QUERY SELECT u.number - 1, u.value FROM unnest(found) WITH ORDINALITY AS u (value, number);\n"
        "      RETURN;\n    END IF;\n  END IF;\n"
        "  RETURN QUERY SELECT q.number - 1, {single}({given}, q.bounds, true) FROM {queries};\n",
        queries=queries, bad=means_nothing(lower, upper, SQL("q.bounds")), error=bad_range(function),
        is_kept=is_kept(buckets, half), kept=kept, has_files=buckets.has_files(),
        single=layout.own(read_name(layout.name, read)), given=comma([*namespace, *lower, *upper]),
    )  # fmt: skip
    declarations = fill("  found {t}[];\n", t=type_)
    yield from function.statements(fill("TABLE (query bigint, result {t})", t=type_), body, declarations)
