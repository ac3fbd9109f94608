"""What verify asks of an ordered aggregate: every bucket beside the items that it stands for, in one snapshot."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.sql import SQL, Composable, Composed

from tallystick.compiler.buckets import Buckets, numbered
from tallystick.compiler.read_function import AS_OWNER, SETTINGS
from tallystick.compiler.runs import rows
from tallystick.compiler.text import Statement, comma, conjunction, dollar_quoted, fill, literal, private

IN_ONE_PASS = fill(
    "{owner} SET row_security = off SET jit = off SET plan_cache_mode = force_custom_plan SET enable_seqscan = on"
    " SET enable_bitmapscan = on SET enable_sort = on SET enable_incremental_sort = on",
    owner=AS_OWNER,
)  # fmt: skip
"""What the planner finds best for each call, though it is called under `SETTINGS`."""
IS_WHOLE = SQL("$1 IS NULL AND $2 IS NULL")


def check_functions(buckets: Buckets) -> Iterator[Statement]:
    """`x__runs()` and `x__check()`.

    Arguments of both: NULL, or the level and place of a bucket as text; of those in their order, what is checked lies
    behind the first and not behind the second. Without both, items come in one pass; else those of each bucket by the
    index.
    """
    yield _runs(buckets)
    yield _check(buckets)
    yield private(buckets.layout.object(suffix) for suffix in ("runs", "check"))


def _runs(buckets: Buckets) -> Statement:
    """`x__runs(behind, upto)`: buckets in their order, with what waits in deltas, and if all, with their items' totals.

    For the latter items and places are sorted together, backwards: an item belongs to the last place that came before
    it, with one row for each place and no probe of an index for each item.
    """
    order, layout = buckets.order, buckets.layout
    names = [name for name, _ in buckets.totals]
    backwards = order.order_by(backwards=True)
    by = fill("PARTITION BY {n} ", n=comma(order.namespace)) if order.namespace else SQL("")
    counted = [fill("{e} AS {n}", e=e, n=name) for e, name in zip(buckets.of_items(), names, strict=True)]
    arguments = buckets.arguments()
    of_delta = [fill("d.{k}", k=name) for name in buckets.columns]
    of_namespace, of_place = of_delta[: len(order.namespace)], of_delta[len(order.namespace) :]
    ahead = buckets.next_place(SQL("1"), of_namespace, of_place, after=True, more=[SQL("ctid")])
    body = fill(
        "\nWITH waiting AS (SELECT b.ctid AS place, {sums} FROM {delta} AS d JOIN LATERAL {ahead} AS b ON true\n"
        "  WHERE {unfolded} GROUP BY 1),\n"
        "places AS MATERIALIZED (SELECT {columns}, ctid AS place, row_number() OVER (ORDER BY {all_backwards})"
        " AS number\n  FROM {table} WHERE level = 1 AND {is_whole}),\n"
        "counted AS (SELECT run, {counted} FROM (SELECT number{inside}, max(number) OVER"
        " ({by}ORDER BY {backwards}, number NULLS FIRST ROWS UNBOUNDED PRECEDING) AS run\n"
        "  FROM (SELECT {columns}, NULL::bigint AS number{inside} FROM {items} WHERE {is_whole}\n"
        "    UNION ALL SELECT {columns}, number{nothing} FROM places) AS u) AS v WHERE number IS NULL GROUP BY run)\n"
        "SELECT b.level, {selected}\n"
        "FROM {table} AS b LEFT JOIN waiting AS w ON w.place = b.ctid\n"
        "  LEFT JOIN places AS p ON p.place = b.ctid LEFT JOIN counted AS i ON i.run = p.number\n"
        "WHERE {within} ORDER BY b.level, {in_order}\n",
        sums=comma(fill("sum(d.{n}) AS {n}", n=name) for name in names), delta=layout.object("delta"), ahead=ahead,
        unfolded=conjunction([layout.unfolded(), *layout.counted()]), columns=comma(buckets.columns),
        all_backwards=order.of_all().order_by(backwards=True), table=buckets.table, is_whole=IS_WHOLE,
        counted=comma(counted), inside=SQL("").join(fill(", {a}", a=name) for name in arguments), by=by,
        backwards=backwards, items=buckets.items, nothing=SQL("").join(SQL(", NULL") for _ in arguments),
        selected=comma(
            [*(fill("b.{k}", k=name) for name in [*buckets.columns, *names]),
             *(fill("coalesce(w.{n}, 0)", n=name) for name in names),
             *(fill("coalesce(i.{n}, 0)", n=name) for name in names)]
        ),
        within=_within(buckets), in_order=comma(fill("b.{k}", k=name) for name in buckets.columns),
    )  # fmt: skip
    returned = [
        SQL("level smallint"),
        *(fill("{k} {t}", k=name, t=order.type_of(name)) for name in buckets.columns),
        *(fill("{n} {t}", n=name, t=type_) for name, type_ in buckets.totals),
        *(fill("{kind}_{n} numeric", kind=SQL(kind), n=name) for kind in ("waiting", "items") for name in names),
    ]
    return Statement(
        "every bucket with what waits to be folded into it, and all of them with their items",
        fill(
            "CREATE FUNCTION {f}(text[], text[]) RETURNS TABLE ({returned}) LANGUAGE sql STABLE {settings}\nAS {body}",
            f=layout.object("runs"), returned=comma(returned), settings=IN_ONE_PASS, body=dollar_quoted(body),
        ),
    )  # fmt: skip


def _check(buckets: Buckets) -> Statement:
    """`x__check(behind, upto)`: one row for each bucket: level, its place, and its totals, kept and direct.

    A bucket of level 1 is compared with its items, one of a level above with the buckets below it; the latter's direct
    totals are NULL where its place does not stand in the level below, by which readers come to it. Behind the last
    place nothing is kept, so nothing can differ there; nor does after a TRUNCATE, until the next fold.
    """
    order, layout = buckets.order, buckets.layout
    names = [name for name, _ in buckets.totals]
    one = [fill("one.{k}", k=name) for name in buckets.columns]
    namespace, place = one[: len(order.namespace)], one[len(order.namespace) :]
    low, begin, end = (order.variables(prefix) for prefix in ("lo", "fr", "to"))
    inside = order.between(begin, end)
    items = rows(order, buckets.items, [*buckets.arguments(), order.position[0]], namespace, inside)
    below_inside = order.between(begin, place)
    below = rows(order, buckets.table, names, namespace, below_inside, SQL("level = one.level - 1"))
    same_place = conjunction([SQL("level = one.level - 1"), *order.in_namespace(namespace), order.is_at(place)])
    results = [fill("direct_{n}", n=name) for name in names]
    declared = [fill("  {r} {t};\n", r=r, t=t) for r, (_, t) in zip(results, buckets.totals, strict=True)]
    counted = comma(fill("coalesce({e}, 0)", e=e) for e in buckets.of_items())
    summed = comma(fill("coalesce(sum({n}), 0)", n=name) for name in names)
    total = [fill("one.{n} + one.waiting_{n}", n=name) for name in names]
    text = fill(
        "\n#variable_conflict use_column\nDECLARE\n{places}  one record;\n{declared}BEGIN\n"
        "  IF NOT ({valid}) THEN\n    RETURN;\n  END IF;\n"
        "  FOR one IN SELECT * FROM {runs}($1, $2) LOOP\n"
        "    IF one.level = 1 AND {is_whole} THEN\n      {of_run};\n    ELSE\n"
        "{before}      IF one.level = 1 THEN\n{first_item}{last_item}"
        "        IF {begin1} IS NULL OR {end1} IS NULL OR {crossed} THEN\n          {nothing};\n"
        "        ELSE\n          SELECT {counted} INTO {results} FROM {items} AS i;\n        END IF;\n"
        "      ELSE\n"
        "{first_below}        SELECT {summed} INTO {results} FROM {below} AS b;\n"
        "        IF NOT EXISTS (SELECT FROM {table} WHERE {same_place}) THEN\n          {unknown};\n        END IF;\n"
        "      END IF;\n    END IF;\n"
        "    RETURN QUERY SELECT one.level::integer, ARRAY[{texts}]::text[], ARRAY[{total}]::numeric[],"
        " ARRAY[{results}]::numeric[];\n"
        "  END LOOP;\n"
        "END\n",
        places=order.declarations("lo", "fr", "to"), valid=conjunction([layout.alive(), buckets.has_files()]),
        declared=SQL("").join(declared), runs=layout.object("runs"), is_whole=IS_WHOLE, table=buckets.table,
        of_run=SQL("; ").join(fill("{r} := one.items_{n}", r=r, n=n) for r, n in zip(results, names, strict=True)),
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
    return Statement(
        "every bucket beside what it stands for",
        fill(
            "CREATE FUNCTION {f}(text[] DEFAULT NULL, text[] DEFAULT NULL)\n"
            "RETURNS TABLE (height integer, place text[], kept numeric[], direct numeric[])"
            " LANGUAGE plpgsql STABLE {settings}\nAS {body}",
            f=layout.object("check"), settings=SETTINGS, body=dollar_quoted(text),
        ),
    )  # fmt: skip


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
