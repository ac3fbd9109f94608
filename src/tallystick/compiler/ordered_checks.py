"""What verify asks of an ordered aggregate: every bucket beside the items that it stands for, in one snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.buckets import Buckets, numbered
from tallystick.compiler.read_function import SETTINGS
from tallystick.compiler.runs import rows
from tallystick.compiler.text import Statement, comma, conjunction, dollar_quoted, fill, literal, private


def check_function(buckets: Buckets) -> Iterator[Statement]:
    """`x__check(behind, upto)`: one row for each bucket: level, its place, and its totals, kept and direct.

    Arguments: NULL, or the level and place of a bucket as text; of those in their order, what is checked lies behind
    the first and not behind the second.
    A bucket of level 1 is compared with its items, one of a level above with the buckets below it; the latter's direct
    totals are NULL where its place does not stand in the level below, by which readers come to it. Behind the last
    place nothing is kept, so nothing can differ there; nor does after a TRUNCATE, until the next fold.
    """
    order, layout = buckets.order, buckets.layout
    names = [name for name, _ in buckets.totals]
    one = [fill("one.{k}", k=name) for name in buckets.columns]
    namespace, place = one[: len(order.namespace)], one[len(order.namespace) :]
    low, begin, end = (order.variables(prefix) for prefix in ("lo", "fr", "to"))
    of_delta = [fill("d.{k}", k=name) for name in buckets.columns]
    of_namespace, of_place = of_delta[: len(order.namespace)], of_delta[len(order.namespace) :]
    ahead = buckets.next_place(SQL("1"), of_namespace, of_place, after=True, more=[SQL("ctid")])
    waiting = fill(
        "(SELECT b.ctid AS place, {sums} FROM {delta} AS d JOIN LATERAL {ahead} AS b ON true WHERE {unfolded}"
        " GROUP BY 1)",
        sums=comma(fill("sum(d.{n}) AS {n}", n=name) for name in names), delta=layout.object("delta"), ahead=ahead,
        unfolded=conjunction([layout.unfolded(), *layout.counted()]),
    )  # fmt: skip
    inside = order.between(begin, end)
    items = rows(order, buckets.items, [*buckets.arguments(), order.position[0]], namespace, inside)
    below_inside = order.between(begin, place)
    below = rows(order, buckets.table, names, namespace, below_inside, SQL("level = one.level - 1"))
    same_place = conjunction([SQL("level = one.level - 1"), *order.in_namespace(namespace), order.is_at(place)])
    results = [fill("direct_{n}", n=name) for name in names]
    declared = [fill("  {r} {t};\n", r=r, t=t) for r, (_, t) in zip(results, buckets.totals, strict=True)]
    counted = comma(fill("coalesce({e}, 0)", e=e) for e in buckets.of_items())
    summed = comma(fill("coalesce(sum({n}), 0)", n=name) for name in names)
    total = [fill("one.{n} + coalesce(one.waiting_{n}, 0)", n=name) for name in names]
    text = fill(
        "\n#variable_conflict use_column\nDECLARE\n{places}  one record;\n{declared}BEGIN\n"
        "  IF NOT ({valid}) THEN\n    RETURN;\n  END IF;\n"
        "  FOR one IN SELECT b.*, {waiting_names} FROM {table} AS b LEFT JOIN {waiting} AS w\n"
        "    ON b.level = 1 AND w.place = b.ctid WHERE {within} ORDER BY b.level, {by}\n"
        "  LOOP\n"
        "{before}    IF one.level = 1 THEN\n{first_item}{last_item}"
        "      IF {begin1} IS NULL OR {end1} IS NULL OR {crossed} THEN\n        {nothing};\n"
        "      ELSE\n        SELECT {counted} INTO {results} FROM {items} AS i;\n      END IF;\n"
        "    ELSE\n"
        "{first_below}      SELECT {summed} INTO {results} FROM {below} AS b;\n"
        "      IF NOT EXISTS (SELECT FROM {table} WHERE {same_place}) THEN\n        {unknown};\n      END IF;\n"
        "    END IF;\n"
        "    RETURN QUERY SELECT one.level::integer, ARRAY[{texts}]::text[], ARRAY[{total}]::numeric[],"
        " ARRAY[{results}]::numeric[];\n"
        "  END LOOP;\n"
        "END\n",
        places=order.declarations("lo", "fr", "to"), valid=conjunction([layout.alive(), buckets.has_files()]),
        declared=SQL("").join(declared),
        waiting_names=comma(fill("w.{n} AS waiting_{n}", n=name) for name in names), table=buckets.table,
        waiting=waiting, within=_within(buckets), by=comma(fill("b.{k}", k=name) for name in buckets.columns),
        before=buckets.seek_place(low, SQL("one.level"), namespace, place, after=False, backwards=True),
        begin1=begin[0], end1=end[0],
        first_item=buckets.seek_item(begin, namespace, low, after=False),
        last_item=buckets.seek_item(end, namespace, place, after=False, backwards=True),
        crossed=order.is_before(begin, values=end),
        nothing=SQL("; ").join(fill("{r} := 0", r=r) for r in results), counted=counted, results=comma(results),
        items=items, first_below=buckets.seek_place(begin, SQL("one.level - 1"), namespace, low, after=True),
        summed=summed, below=below, same_place=same_place,
        unknown=SQL("; ").join(fill("{r} := NULL", r=r) for r in results),
        texts=comma(fill("{k}::text", k=k) for k in one), total=comma(total),
    )  # fmt: skip
    yield Statement(
        "every bucket beside what it stands for",
        fill(
            "CREATE FUNCTION {f}(text[] DEFAULT NULL, text[] DEFAULT NULL)\n"
            "RETURNS TABLE (height integer, place text[], kept numeric[], direct numeric[])"
            " LANGUAGE plpgsql STABLE {settings}\nAS {body}",
            f=layout.object("check"), settings=SETTINGS, body=dollar_quoted(text),
        ),
    )  # fmt: skip
    yield private([layout.object("check")])


def _within(buckets: Buckets) -> Composed:
    """The bucket `b` lies behind the first argument and not behind the second, where these are given."""
    one = comma([SQL("b.level"), *(fill("b.{k}", k=name) for name in buckets.columns)])

    def beyond(argument: SQL) -> Composed:
        given: list[Composable] = [fill("({a})[1]::smallint", a=argument)]
        for index, name in enumerate(buckets.columns, start=2):
            value = fill("({a})[{i}]::{t}", a=argument, i=literal(index), t=buckets.order.type_of(name))
            given.append(buckets.order.collated(name, value))
        return fill("record_gt(ROW({one}), ROW({given}))", one=one, given=comma(given))

    behind, upto = numbered(1, 2)
    return fill(
        "({behind} IS NULL OR {is_behind}) AND ({upto} IS NULL OR NOT {is_beyond})",
        behind=behind, is_behind=beyond(behind), upto=upto, is_beyond=beyond(upto),
    )  # fmt: skip
