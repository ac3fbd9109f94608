"""The functions that give items: `x_at`, `x_percentile`, `x_min`, `x_max`, `x_page`; and `x_namespaces`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.buckets import Buckets
from tallystick.compiler.read_function import (
    SETTINGS,
    Function,
    Range,
    is_kept,
    item_columns,
    items_of,
    public_columns,
    raised,
)
from tallystick.compiler.runs import first, rows, seek
from tallystick.compiler.text import Statement, column, comma, conjunction, fill, literal

AS_TEXT = SQL(
    "SET extra_float_digits = 1 SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET timezone = 'UTC'"
)
"""Of values that become text and are read back."""


def item_functions(buckets: Buckets) -> Iterator[Statement]:
    """Those that give rows."""
    yield from _at(buckets)
    yield from _percentile(buckets)
    for read, backwards in (("min", False), ("max", True)):
        yield from _end(buckets, read, backwards=backwards)
    yield from _page(buckets)
    if buckets.order.namespace:
        yield from _namespaces(buckets)


def _at(buckets: Buckets) -> Iterator[Statement]:
    order, layout = buckets.order, buckets.layout
    function = Function(
        buckets, "at", "The item at an offset in a range, from 0, or from its end if negative; or no row."
    )
    namespace = function.take_namespace()
    offset = function.take("at_offset", SQL("bigint"))
    span = Range(function, namespace)
    half = function.take_half()
    found = order.variables("it")
    rank, nth = layout.object("rank"), layout.object("nth")
    from_first = fill(
        "CASE WHEN {all} THEN 0 ELSE {rank}({first}) END",
        all=span.from_start(), rank=rank, first=comma([*namespace, *span.first]),
    )  # fmt: skip

    def direct(pieces: Sequence[Composable], passed: Composable, *, backwards: bool) -> Composed:
        return first(
            order, buckets.items, item_columns(buckets), namespace, pieces, backwards=backwards, offset=passed
        )  # fmt: skip

    body = fill(
        "  IF {offset} IS NULL THEN\n    RETURN;\n  END IF;\n"
        "{sought}  IF {is_kept} THEN\n"
        "    wanted := {offset} + CASE WHEN {offset} < 0 THEN {rank}({last}) + 1 ELSE {from_first} END;\n"
        "    SELECT * INTO {found} FROM {nth}({namespace}wanted) AS u;\n"
        "    IF {has_files} THEN\n"
        "      RETURN QUERY SELECT {columns} FROM {items} AS i\n"
        "      WHERE {this} AND NOT ({too_low}) AND NOT ({too_high});\n"
        "      RETURN;\n    END IF;\n  END IF;\n"
        "  IF {offset} < 0 THEN\n    RETURN QUERY SELECT * FROM {back} AS u;\n"
        "  ELSE\n    RETURN QUERY SELECT * FROM {forth} AS u;\n  END IF;\n",
        offset=offset, sought=span.sought(SQL("RETURN")), is_kept=is_kept(buckets, half), rank=rank,
        last=comma([*namespace, *span.last]), from_first=from_first, found=comma(found), nth=nth,
        namespace=SQL("").join(fill("{v}, ", v=v) for v in namespace), has_files=buckets.has_files(),
        columns=comma(item_columns(buckets)), items=buckets.items,
        this=conjunction([*order.in_namespace(namespace), order.is_at(found)]),
        too_low=order.is_before(span.first, values=found), too_high=order.is_before(found, values=span.last),
        back=direct(span.between()[::-1], fill("(-{o} - 1)", o=offset), backwards=True),
        forth=direct(span.between(), offset, backwards=False),
    )  # fmt: skip
    declarations = fill("{d}{it}  wanted bigint;\n", d=span.declarations(), it=order.declarations("it"))
    yield from function.statements(items_of(buckets), body, declarations)


def _percentile(buckets: Buckets) -> Iterator[Statement]:
    order, layout = buckets.order, buckets.layout
    function = Function(
        buckets, "percentile", "The item of the nearest rank for a share p (0 to 1) of a range; or no row."
    )
    namespace = function.take_namespace()
    p = function.take("p", SQL("double precision"))
    span = Range(function, namespace)
    half = function.take_half()
    found = order.variables("it")
    # Of the shortest decimal text: 0.07 of 100 are 7 and not a little more.
    nearest = fill("greatest(ceil(share * items)::bigint - 1, 0)")
    items = rows(order, buckets.items, [order.position[0]], namespace, span.between())
    forth = first(order, buckets.items, item_columns(buckets), namespace, span.between(), offset=nearest)
    body = fill(
        "  IF {p} IS NULL OR NOT {p} BETWEEN 0 AND 1 THEN\n    {error};\n  END IF;\n"
        "  share := {p}::text::numeric;\n"
        "{sought}  IF {is_kept} THEN\n"
        "    passed := CASE WHEN {all} THEN 0 ELSE {rank}({first}) END;\n"
        "    items := {rank}({last}) + 1 - passed;\n"
        "    SELECT * INTO {found} FROM {nth}({namespace}passed + {nearest}) AS u;\n"
        "    IF {has_files} THEN\n"
        "      RETURN QUERY SELECT {columns} FROM {view} AS i WHERE {this};\n"
        "      RETURN;\n    END IF;\n  END IF;\n"
        "  items := (SELECT count(*) FROM {rows} AS i);\n"
        "  RETURN QUERY SELECT * FROM {forth} AS u;\n",
        p=p, error=raised(function, "p is a number from 0 to 1."), sought=span.sought(SQL("RETURN")),
        is_kept=is_kept(buckets, half), all=span.from_start(), rank=layout.object("rank"),
        first=comma([*namespace, *span.first]), last=comma([*namespace, *span.last]), found=comma(found),
        nth=layout.object("nth"), namespace=SQL("").join(fill("{v}, ", v=v) for v in namespace), nearest=nearest,
        has_files=buckets.has_files(), columns=comma(item_columns(buckets)), view=buckets.items,
        this=conjunction([*order.in_namespace(namespace), order.is_at(found)]), rows=items, forth=forth,
    )  # fmt: skip
    declarations = fill(
        "{d}{it}  share numeric;\n  items bigint;\n  passed bigint;\n",
        d=span.declarations(), it=order.declarations("it"),
    )  # fmt: skip
    settings = fill("{s} SET extra_float_digits = 1", s=SETTINGS)
    yield from function.statements(items_of(buckets), body, declarations, settings=settings)


def _end(buckets: Buckets, read: str, *, backwards: bool) -> Iterator[Statement]:
    order = buckets.order
    function = Function(buckets, read, f"The {'last' if backwards else 'first'} item of a range, or no row.")
    span = Range(function, function.take_namespace())
    function.take_half()
    this = conjunction([*order.in_namespace(span.namespace), order.is_at(span.last if backwards else span.first)])
    body = fill(
        "{sought}  RETURN QUERY SELECT {columns} FROM {items} AS i WHERE {this};\n",
        sought=span.sought(SQL("RETURN")), columns=comma(item_columns(buckets)), items=buckets.items, this=this,
    )  # fmt: skip
    yield from function.statements(items_of(buckets), body, span.declarations())


def _page(buckets: Buckets) -> Iterator[Statement]:
    order, layout = buckets.order, buckets.layout
    function = Function(
        buckets, "page", "Items of a range in order, each with the cursor that the next page goes on after."
    )
    namespace = function.take_namespace()
    limit = function.take("page_limit", SQL("bigint"))
    after = function.take("page_after", SQL("text"), SQL("NULL"))
    direction = function.take("in_order", SQL("text"), literal("asc"))
    span = Range(function, namespace)
    function.take_half()
    given = [fill("said -> 2 ->> {i}", i=literal(index)) for index in range(len(order.position))]
    place = order.variables("at")
    cut = SQL("; ").join(
        fill("{v} := ({g})::{t}", v=variable, g=text, t=order.type_of(name))
        for variable, text, name in zip(place, given, order.position, strict=True)
    )
    foreign = [fill("said ->> 0 IS DISTINCT FROM {name}", name=literal(layout.name))]
    for index, (name, value) in enumerate(zip(order.namespace, namespace, strict=True)):
        said = fill("(said -> 1 ->> {i})::{t}", i=literal(index), t=order.type_of(name))
        foreign.append(fill("({same}) IS NOT TRUE", same=order.compare(name, "=", value, left=said)))
    texts = [
        fill("json_build_array({v})", v=comma(fill("{k}::text", k=name) for name in names))
        for names in (order.namespace, order.position)
    ]
    cursor = fill(
        "rtrim(translate(encode(convert_to(json_build_array({name}, {texts})::text, 'UTF8'), 'base64'),"
        " E'+/\\n', '-_'), '=')",
        name=literal(layout.name), texts=comma(texts),
    )  # fmt: skip
    columns = item_columns(buckets)

    def page(pieces: Sequence[Composable], *, backwards: bool) -> Composed:
        found = first(order, buckets.items, columns, namespace, pieces, backwards=backwards, limit=limit)
        return fill(
            "RETURN QUERY SELECT {columns}, {cursor} FROM {found} AS u",
            columns=comma(columns),
            cursor=cursor,
            found=found,
        )

    body = fill(
        "  IF {limit} IS NULL OR {limit} < 1 THEN\n    {bad_limit};\n  END IF;\n"
        "  IF {direction} IS NULL OR {direction} NOT IN ('asc', 'desc') THEN\n    {bad_order};\n  END IF;\n"
        "{sought}"
        "  IF {after} IS NOT NULL THEN\n"
        "    said := convert_from(decode(rpad(translate({after}, '-_', '+/'),"
        " (length({after}) + 3) / 4 * 4, '='), 'base64'), 'UTF8')::json;\n"
        "    IF {foreign} THEN\n      {bad_cursor};\n    END IF;\n"
        "    {cut};\n"
        "    IF {direction} = 'asc' AND NOT ({place_before}) THEN\n"
        "{behind}"
        "    ELSIF {direction} = 'desc' AND NOT ({place_behind}) THEN\n"
        "{before}"
        "    END IF;\n"
        "    IF {first1} IS NULL OR {last1} IS NULL OR {crossed} THEN\n      RETURN;\n    END IF;\n"
        "  END IF;\n"
        "  IF {direction} = 'asc' THEN\n    {forth};\n  ELSE\n    {back};\n  END IF;\n",
        limit=limit, bad_limit=raised(function, "the limit is a number from 1."), direction=direction,
        bad_order=raised(function, 'the order is "asc" or "desc".'), sought=span.sought(SQL("RETURN")), after=after,
        foreign=SQL(" OR ").join(foreign),
        bad_cursor=raised(function, "the cursor is of another aggregate or namespace."), cut=cut,
        place_before=order.is_before(span.first, values=place),
        behind=buckets.seek_item(span.first, namespace, place, after=True),
        place_behind=order.is_before(place, values=span.last),
        before=buckets.seek_item(span.last, namespace, place, after=False, backwards=True),
        first1=span.first[0], last1=span.last[0], crossed=order.is_before(span.first, values=span.last),
        forth=page(span.between(), backwards=False), back=page(span.between()[::-1], backwards=True),
    )  # fmt: skip
    outs = comma([
        *(fill("{n} {t}", n=Identifier(name), t=type_) for name, type_ in public_columns(buckets)), SQL("cursor text")
    ])  # fmt: skip
    declarations = fill("{d}{at}  said json;\n", d=span.declarations(), at=order.declarations("at"))
    settings = fill("{s} {text} SET bytea_output = 'hex'", s=SETTINGS, text=AS_TEXT)
    yield from function.statements(fill("TABLE ({outs})", outs=outs), body, declarations, settings=settings)


def _namespaces(buckets: Buckets) -> Iterator[Statement]:
    order = buckets.order.of_namespaces()
    function = Function(buckets, "namespaces", "All namespaces that have items, in their order.")
    function.take_half()
    current = [column("ns", index) for index in range(1, len(order.position) + 1)]
    following = seek(order, current, buckets.items, [], current, after=True, whole=True)
    outs = [fill("{n} {t}", n=Identifier(name), t=t) for name, t in public_columns(buckets)[: len(order.position)]]
    body = fill(
        "  LOOP\n{following}    EXIT WHEN {current1} IS NULL;\n"
        "    RETURN QUERY SELECT {current};\n  END LOOP;\n",
        current=comma(current), following=following, current1=current[0],
    )  # fmt: skip
    declarations = SQL("").join(
        fill("  {v} {t};\n", v=v, t=order.type_of(name)) for v, name in zip(current, order.position, strict=True)
    )
    yield from function.statements(fill("TABLE ({outs})", outs=comma(outs)), body, declarations)
