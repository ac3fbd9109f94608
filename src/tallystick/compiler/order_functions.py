"""The functions that readers call: `x_count`, `x_rank`, `x_at` and so on, in SQL as in Python.

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
from tallystick.compiler.runs import first, rows, seek
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
)
"""Each step is to walk an index from one place on, planned once for a session, whatever its settings are."""
AS_TEXT = SQL(
    "SET extra_float_digits = 1 SET datestyle = 'ISO, YMD' SET intervalstyle = 'postgres' SET timezone = 'UTC'"
)
"""Of values that become text and are read back."""
INLINE = SQL("SET search_path = pg_catalog, pg_temp")


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
        after_lower = fill("left({b}, 1) = '('", b=self.bounds)
        after_upper = fill("right({b}, 1) = ']'", b=self.bounds)
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
        gaps = [
            fill("({b} IS NOT NULL AND {a} IS NULL)", a=ends[index], b=ends[index + 1])
            for ends in (self.lower, self.upper)
            for index in range(len(ends) - 1)
        ]
        gap = raised(self.function, "an end of a range leaves out its last columns only.")
        return fill(
            "  IF {bounds} IS NULL OR {bounds} NOT IN ('[]', '[)', '(]', '()') THEN\n"
            "    {bad_bounds};\n  END IF;\n{gaps}",
            bounds=self.bounds,
            bad_bounds=raised(self.function, "bounds are one of [], [), (], ()."),
            gaps=fill("  IF {any} THEN\n    {error};\n  END IF;\n", any=SQL(" OR ").join(gaps), error=gap)
            if gaps
            else SQL(""),
        )

    def from_start(self) -> Composed:
        """No lower end is given."""
        return fill("{v} IS NULL", v=self.lower[0])

    def between(self) -> list[Composed]:
        return self.order.between(self.first, self.last)


def raised(function: Function, what: str) -> Composed:
    return fill(
        "RAISE invalid_parameter_value USING MESSAGE = {m}", m=literal(f'aggregate "{function.layout.name}": {what}')
    )


def is_kept(buckets: Buckets, half: Composable) -> Composed:
    layout = buckets.layout
    return conjunction([fill("NOT {half}", half=half), layout.is_kept(), layout.alive(), has_files(buckets)])


def has_files(buckets: Buckets) -> Composed:
    """The source's rows are in the files that they were in at the last fold."""
    return fill("(SELECT files FROM {w}) = {files}", w=buckets.layout.watermark(), files=buckets.files())


def item_columns(buckets: Buckets) -> list[Composable]:
    """An item as the public view has it."""
    return [*buckets.columns, *(column("s", index) for index in range(1, len(sum_names(buckets)) + 1))]


def sum_names(buckets: Buckets) -> list[str]:
    return [measure.name for measure in buckets.layout.shape.measures if measure.argument is not None]


def read_functions(buckets: Buckets) -> Iterator[Statement]:
    """Everything that readers call."""
    yield from _count(buckets)
    for index, name in enumerate(sum_names(buckets), start=1):
        yield from _sum(buckets, name, index)
    yield from _rank(buckets)
    yield from _rank_of(buckets)
    yield from _at(buckets)
    yield from _percentile(buckets)
    for read, backwards in (("min", False), ("max", True)):
        yield from _end(buckets, read, backwards=backwards)
    yield from _page(buckets)
    if buckets.order.namespace:
        yield from _namespaces(buckets)


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
        sought=span.sought(SQL("RETURN 0")), is_kept=is_kept(buckets, half), kept=kept, has_files=has_files(buckets),
        items=items,
    )  # fmt: skip
    yield from function.statements(
        SQL("bigint"), body, fill("{d}  result bigint;\n", d=span.declarations())
    )  # fmt: skip


def _sum(buckets: Buckets, name: str, index: int) -> Iterator[Statement]:
    layout = buckets.layout
    measures = list(layout.shape.measures)
    measure = next(each for each in measures if each.name == name)
    type_ = canonical(layout.snapshot.measures[measures.index(measure)].text)
    value = layout.parts.results[measures.index(measure)].value
    function = Function(buckets, f"sum_{name}", "Sum over the items in a range of a namespace's order.")
    span = Range(function, function.take_namespace())
    half = function.take_half()
    results = [column("r", number) for number in range(1, len(buckets.totals) + 1)]
    difference = comma(
        fill("(u.{r} + o.{n} - coalesce(l.{r}, 0))::{t} AS {n}", r=r, t=kind, n=own)
        for r, (own, kind) in zip(results, buckets.totals, strict=True)
    )
    parts = comma(fill("{e} AS {n}", e=e, n=n) for e, (n, _) in zip(buckets.of_items(), buckets.totals, strict=True))
    at_last = conjunction([*buckets.order.in_namespace(span.namespace), buckets.order.is_at(span.last)])
    kept = fill(
        "SELECT {value} INTO result FROM (SELECT {difference}\n"
        "      FROM {totals}({upto}) AS u, (SELECT {parts} FROM {items} AS i WHERE {at_last}) AS o LEFT JOIN LATERAL"
        " (SELECT * FROM {totals}({from_}) AS t WHERE NOT ({all})) AS l ON true) AS c",
        value=value, difference=difference, totals=layout.object("totals"),
        upto=comma([*span.namespace, *span.last]), parts=parts, items=buckets.items, at_last=at_last,
        from_=comma([*span.namespace, *span.first]), all=span.from_start(),
    )  # fmt: skip
    source = column("s", index)
    if name in layout.parts.direct:
        # Of floating point, both halves are defined over the shortest decimal text of each value.
        parts = comma(
            fill("{e} AS {n}", e=e, n=n) for e, (n, _) in zip(buckets.of_items(), buckets.totals, strict=True)
        )
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
        sought=span.sought(SQL("RETURN 0")), is_kept=is_kept(buckets, half), kept=kept, has_files=has_files(buckets),
        items=items, direct=direct,
    )  # fmt: skip
    yield from function.statements(type_, body, fill("{d}  result {t};\n", d=span.declarations(), t=type_))


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
    yield from function.statements(SQL("bigint"), body, settings=INLINE)


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
        namespace=SQL("").join(fill("{v}, ", v=v) for v in namespace), has_files=has_files(buckets),
        columns=comma(item_columns(buckets)), items=buckets.items,
        this=conjunction([*order.in_namespace(namespace), order.is_at(found)]),
        too_low=order.is_before(span.first, values=found), too_high=order.is_before(found, values=span.last),
        back=direct(span.between()[::-1], fill("(-{o} - 1)", o=offset), backwards=True),
        forth=direct(span.between(), offset, backwards=False),
    )  # fmt: skip
    declarations = fill("{d}{it}  wanted bigint;\n", d=span.declarations(), it=order.declarations("it"))
    yield from function.statements(_items_of(buckets), body, declarations)


def _percentile(buckets: Buckets) -> Iterator[Statement]:
    layout = buckets.layout
    function = Function(
        buckets, "percentile", "The item of the nearest rank for a share p (0 to 1) of a range; or no row."
    )
    namespace = function.take_namespace()
    p = function.take("p", SQL("double precision"))
    span = Range(function, namespace)
    half = function.take_half()
    given = [*span.lower, *span.upper, span.bounds, half]
    body = fill(
        "  IF {p} IS NULL OR NOT {p} BETWEEN 0 AND 1 THEN\n    {error};\n  END IF;\n"
        "  items := {count}({range});\n"
        # Of the shortest decimal text: 0.07 of 100 are 7 and not a little more.
        "  RETURN QUERY SELECT * FROM {at}({namespace}greatest(ceil({p}::text::numeric * items)::bigint - 1, 0),"
        " {given}) AS u\n    WHERE items > 0;\n",
        p=p, error=raised(function, "p is a number from 0 to 1."),
        count=layout.own(read_name(layout.name, "count")), range=comma([*namespace, *given]),
        at=layout.own(read_name(layout.name, "at")), namespace=SQL("").join(fill("{v}, ", v=v) for v in namespace),
        given=comma(given),
    )  # fmt: skip
    yield from function.statements(
        _items_of(buckets), body, SQL("  items bigint;\n"), settings=fill("{s} SET extra_float_digits = 1", s=INLINE)
    )  # fmt: skip


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
    yield from function.statements(_items_of(buckets), body, span.declarations())


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


def _items_of(buckets: Buckets) -> Composed:
    return fill("SETOF {view}", view=buckets.layout.own(buckets.layout.name))
