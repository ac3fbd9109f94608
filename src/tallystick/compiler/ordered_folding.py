"""Fold and rebuild of an ordered aggregate: deltas into buckets, and buckets kept to their size.

Whatever counts items or sums them up is right in one snapshot only, so a fold runs in a REPEATABLE READ transaction
that has the source and the buckets locked (against TRUNCATE and other folds) before its snapshot is taken. It takes in
all deltas it sees; then the items of a bucket that has grown are those of the source in the same snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.buckets import (
    LEVELS,
    Buckets,
    internal_function,
    numbered,
    parameters,
)
from tallystick.compiler.folding import counted_anew, raise_floor
from tallystick.compiler.runs import rows
from tallystick.compiler.text import (
    NO_SQL,
    SETTINGS,
    Statement,
    comma,
    conjunction,
    dollar_quoted,
    fill,
    literal,
    private,
)


def folding_functions(buckets: Buckets) -> Iterator[Statement]:
    """`x__cut`, `x__join`, `x__fold`, `x__rebuild`."""
    layout = buckets.layout
    yield Statement("begins new buckets where one, or the tail, has grown too long", _cut(buckets))
    yield Statement("has a short bucket go on into the next one", _join(buckets))
    yield _maintaining(
        buckets, "rebuild", "computes all buckets from the source; returns how many there are",
        _rebuild(buckets), returns=SQL("bigint"), takes=NO_SQL, declarations=SQL("  written bigint;\n"),
    )  # fmt: skip
    yield _maintaining(
        buckets, "fold", "adds all visible deltas to the buckets; returns deltas consumed and buckets written",
        _fold(buckets), returns=SQL("record"), takes=SQL("OUT deltas bigint, OUT groups bigint"),
        declarations=SQL("  one record;\n  size bigint;\n"),
    )  # fmt: skip
    yield Statement("whether the source is as it was when the buckets were made", _same_files(buckets))
    names = ["cut", "join", "fold", "rebuild", "same_files"]
    if layout.snapshot.source.is_partitioned:
        yield Statement("takes note of partitions that were counted in or out", _partition_files(buckets))
        names.append("refile")
    yield private(layout.object(name) for name in names)


def _maintaining(
    buckets: Buckets,
    suffix: str,
    purpose: str,
    body: Composable,
    *,
    returns: Composable,
    takes: Composable,
    declarations: Composable,
) -> Statement:
    check = fill(
        "  IF current_setting('transaction_isolation') = 'read committed' THEN\n"
        "    RAISE invalid_transaction_state USING MESSAGE = {message}, HINT = {hint};\n  END IF;\n",
        message=literal(f'aggregate "{buckets.layout.name}": it is folded in a REPEATABLE READ transaction only.'),
        hint=literal(f"Run: tally fold {buckets.layout.name}"),
    )
    text = fill(
        "\n#variable_conflict use_column\nDECLARE\n{declarations}BEGIN\n{check}{body}END\n",
        declarations=declarations, check=check, body=body,
    )  # fmt: skip
    sql = fill(
        "CREATE FUNCTION {f}({takes}) RETURNS {returns} LANGUAGE plpgsql {settings}\nAS {body}",
        f=buckets.layout.object(suffix), takes=takes, returns=returns, settings=SETTINGS, body=dollar_quoted(text),
    )  # fmt: skip
    return Statement(purpose, sql)


def _rebuild(buckets: Buckets) -> Composed:
    layout = buckets.layout
    steps: list[Composable] = [
        fill("DELETE FROM {delta}", delta=layout.object("delta")),
        fill("DELETE FROM {bucket}", bucket=buckets.table),
        *counted_anew(layout),
        raise_floor(layout, SQL("true")),
        note_files(buckets),
        places_of_items(buckets, buckets.items),
        *higher_levels(buckets),
        fill("SELECT count(*) INTO written FROM {bucket} WHERE level = 1", bucket=buckets.table),
    ]
    return fill("  {steps};\n  RETURN written;\n", steps=SQL(";\n  ").join(steps))


def higher_levels(buckets: Buckets) -> Iterator[Composed]:
    """INSERT the places of the levels above the first."""
    for level in range(2, LEVELS + 1):
        below = fill("(SELECT * FROM {t} WHERE level = {l}) AS b", t=buckets.table, l=literal(level - 1))
        yield _places_of_places(buckets, literal(level), below)


def note_files(buckets: Buckets) -> Composed:
    """UPDATE: the files that the rows of the source are in now."""
    return fill(
        "UPDATE {table} SET files = {files}, folder = pg_current_xact_id() WHERE aggregate = {name}",
        table=buckets.layout.own("watermark"), files=buckets.files(), name=literal(buckets.layout.name),
    )  # fmt: skip


def _partition_files(buckets: Buckets) -> Composed:
    """Arguments: files. If the source differs from before by these alone, what is kept knows of it."""

    def rest(files: Composable) -> Composed:
        return fill(
            "ARRAY(SELECT u.f FROM unnest({files}) WITH ORDINALITY AS u (f, o) WHERE u.f <> ALL ($1) ORDER BY u.o)",
            files=files,
        )  # fmt: skip

    return fill(
        "CREATE FUNCTION {f}(oid[]) RETURNS void LANGUAGE sql {settings}\n"
        "BEGIN ATOMIC\n  {note} AND {was} = {is_};\nEND",
        f=buckets.layout.object("refile"), settings=SETTINGS, note=note_files(buckets), was=rest(SQL("files")),
        is_=rest(buckets.files()),
    )  # fmt: skip


def _same_files(buckets: Buckets) -> Composed:
    return fill(
        "CREATE FUNCTION {f}() RETURNS boolean LANGUAGE sql STABLE {settings}\nBEGIN ATOMIC SELECT {same}; END",
        f=buckets.layout.object("same_files"), settings=SETTINGS, same=buckets.has_files(),
    )  # fmt: skip


def places_of_items(buckets: Buckets, items: Composable) -> Composed:
    """INSERT a place of level 1 wherever a bucket's number of items has come together; the rest is left over."""
    order, layout = buckets.order, buckets.layout
    namespace = list(order.namespace)
    partition = fill("PARTITION BY {ns} ", ns=comma(namespace)) if namespace else SQL("")
    window = fill("({partition}ORDER BY {by})", partition=partition, by=order.order_by())
    columns = comma([*buckets.columns, *buckets.arguments()])
    is_first = conjunction(
        [fill("(number - 1) % {size} = 0", size=literal(buckets.run_of_items)), SQL("number > 1"), *layout.narrow()]
    )
    numbered_items = fill(
        "SELECT {columns}, row_number() OVER {window} AS number FROM {items} AS i",
        columns=columns, window=window, items=items,
    )  # fmt: skip
    marked = fill("SELECT *, {is_first} AS is_first FROM ({rows}) AS m", is_first=is_first, rows=numbered_items)
    if layout.has_wide_keys:
        # A place that is too wide for the index is passed over, so that runs are told by the places that are left.
        run: Composable = fill("count(*) FILTER (WHERE is_first) OVER {window} AS run", window=window)
    else:
        run = fill("(number - 1) / {size} AS run", size=literal(buckets.run_of_items))
    grouped = comma([*namespace, SQL("run")])
    sums = [fill("{v} AS {n}", v=v, n=n) for v, (n, _) in zip(buckets.of_items(), buckets.totals, strict=True)]
    places = [fill("(array_agg({k}) FILTER (WHERE is_first))[1] AS {k}", k=name) for name in order.position]
    runs = fill(
        "SELECT {grouped}, {places}, {sums} FROM (SELECT *, {run} FROM ({marked}) AS m) AS r GROUP BY {grouped}",
        grouped=grouped, places=comma(places), sums=comma(sums), run=run, marked=marked,
    )  # fmt: skip
    before = [fill("lag({n}) OVER w AS {n}", n=name) for name, _ in buckets.totals]
    return fill(
        "INSERT INTO {table} (level, {into})\n    SELECT 1, {into} FROM ("
        "SELECT run, {columns}, {before} FROM ({runs}) AS r WINDOW w AS ({partition}ORDER BY run)"
        ") AS b WHERE run > 0",
        table=buckets.table, into=comma([*buckets.columns, *(name for name, _ in buckets.totals)]),
        columns=comma(buckets.columns), before=comma(before), runs=runs, partition=partition,
    )  # fmt: skip


def _places_of_places(buckets: Buckets, level: Composable, below: Composable) -> Composed:
    """INSERT a place of a level wherever enough places of the level below have come together."""
    order = buckets.order
    namespace = list(order.namespace)
    partition = fill("PARTITION BY {ns} ", ns=comma(namespace)) if namespace else SQL("")
    sums = [fill("sum({name})::{type}", name=name, type=type_) for name, type_ in buckets.totals]
    size = literal(buckets.run_of_places)
    last = [fill("(array_agg({k}) FILTER (WHERE number % {size} = 0))[1]", k=k, size=size) for k in order.position]
    return fill(
        "INSERT INTO {table} (level, {into})\n    SELECT {level}, {values} FROM ("
        "SELECT *, row_number() OVER ({partition}ORDER BY {by}) AS number FROM {below}"
        ") AS r GROUP BY {grouped} HAVING count(*) = {size}",
        table=buckets.table, into=comma([*buckets.columns, *(name for name, _ in buckets.totals)]), level=level,
        values=comma([*namespace, *last, *sums]), partition=partition, by=order.order_by(), below=below, size=size,
        grouped=comma([*namespace, fill("(number - 1) / {size}", size=size)]),
    )  # fmt: skip


def _cut(buckets: Buckets) -> Composed:
    """Arguments: namespace, the place that ends a bucket (NULLs for the tail), level."""
    order = buckets.order
    namespace = numbered(1, len(order.namespace))
    place = numbered(1 + len(namespace), len(order.position))
    (level,) = numbered(1 + len(buckets.columns), 1)
    low, begin, end = (order.variables(prefix) for prefix in ("lo", "fr", "to"))
    inside = order.between(begin, end)
    item_columns = [*buckets.columns, *buckets.arguments()]
    of_places = [*buckets.columns, *(name for name, _ in buckets.totals)]
    is_below = SQL("level = height")
    items = rows(order, buckets.items, item_columns, namespace, inside)
    places = fill("{rows} AS b", rows=rows(order, buckets.table, of_places, namespace, inside, is_below))

    def is_long(table: Composable, size: int, *conditions: Composable) -> Composed:
        some = rows(order, table, [order.position[0]], namespace, inside, *conditions)
        return fill("EXISTS (SELECT FROM {some} AS s OFFSET {most})", some=some, most=literal(2 * size))

    def insert(statement: Composable) -> Composed:
        taken = comma(fill("sum({name}) AS {name}", name=name) for name, _ in buckets.totals)
        return fill(
            "WITH new AS (\n    {insert} RETURNING *)\n    SELECT {taken} INTO taken FROM new",
            insert=statement, taken=taken,
        )  # fmt: skip

    changes = [fill("{name} = {name} - taken.{name}", name=name) for name, _ in buckets.totals]
    up = order.variables("up")
    body = fill(
        "{before}  IF {level} = 1 THEN\n"
        "{first_item}{last_item}"
        "    IF {begin1} IS NULL OR {end1} IS NULL OR {crossed} OR NOT {many_items} THEN\n      RETURN;\n    END IF;\n"
        "    {insert_items};\n"
        "  ELSE\n"
        "    height := {level} - 1;\n"
        "{first_place}{last_place}"
        "    IF {begin1} IS NULL OR {end1} IS NULL OR {crossed} OR NOT {many_places} THEN\n      RETURN;\n    END IF;\n"
        "    {insert_places};\n"
        "  END IF;\n"
        "  IF taken.n IS NOT NULL THEN\n"
        "    UPDATE {table} SET {changes} WHERE {this};\n"
        "    IF {level} < {levels} THEN\n"
        "      IF {place1} IS NOT NULL THEN\n      {above}      END IF;\n"
        "      PERFORM {cut}({again});\n"
        "    END IF;\n"
        "  END IF;\n",
        level=level, place1=place[0],
        before=buckets.seek_place(low, level, namespace, place, after=False, backwards=True),
        begin1=begin[0], end1=end[0], crossed=order.is_before(begin, values=end),
        first_item=buckets.seek_item(begin, namespace, low, after=False),
        last_item=buckets.seek_item(end, namespace, place, after=False, backwards=True),
        first_place=buckets.seek_place(begin, SQL("height"), namespace, low, after=True),
        last_place=buckets.seek_place(end, SQL("height"), namespace, place, after=False, backwards=True),
        many_items=is_long(buckets.items, buckets.run_of_items),
        many_places=is_long(buckets.table, buckets.run_of_places, is_below),
        insert_items=insert(places_of_items(buckets, items)),
        insert_places=insert(_places_of_places(buckets, level, places)),
        table=buckets.table, changes=comma(changes), this=_this(buckets, level), levels=literal(LEVELS),
        above=buckets.seek_place(up, fill("{l} + 1", l=level), namespace, place, after=False),
        cut=buckets.layout.object("cut"), again=comma([*namespace, *up, fill("{l} + 1", l=level)]),
    )  # fmt: skip
    takes = comma([*parameters(buckets, buckets.columns), SQL("integer")])
    declarations = fill(
        "{places}  height integer;\n  taken record;\n", places=order.declarations("lo", "fr", "to", "up")
    )
    return internal_function(buckets.layout, "cut", takes, declarations, body, SQL("RETURNS void"))


def _join(buckets: Buckets) -> Composed:
    """Arguments: namespace, the place that ends a bucket of level 1."""
    order = buckets.order
    namespace = numbered(1, len(order.namespace))
    place = numbered(1 + len(namespace), len(order.position))
    after = order.variables("to")
    changes = [fill("{name} = {name} + gone.{name}", name=name) for name, _ in buckets.totals]
    this, following = _this(buckets, SQL("height")), _this(buckets, SQL("height"), after)
    body = fill(
        "  FOR height IN 1 .. {levels} LOOP\n"
        "    SELECT * INTO gone FROM {table} WHERE {this};\n"
        "    EXIT WHEN NOT FOUND;\n"
        "    SELECT * INTO {after}, size FROM {next} AS u;\n"
        "    IF height = 1 AND {after1} IS NOT NULL AND gone.n + size > {most} THEN\n      RETURN;\n    END IF;\n"
        "    DELETE FROM {table} WHERE {this};\n"
        "    UPDATE {table} SET {changes} WHERE {following};\n"
        "  END LOOP;\n",
        levels=literal(LEVELS), table=buckets.table, this=this, after=comma(after), after1=after[0],
        next=buckets.next_place(SQL("height"), namespace, place, after=True, more=[SQL("n")]),
        most=literal(buckets.run_of_items), changes=comma(changes), following=following,
    )  # fmt: skip
    declarations = fill("{places}  gone record;\n  size bigint;\n", places=order.declarations("to"))
    takes = comma(parameters(buckets, buckets.columns))
    return internal_function(buckets.layout, "join", takes, declarations, body, SQL("RETURNS void"))


def _this(buckets: Buckets, level: Composable, place: Sequence[Composable] | None = None) -> Composed:
    """The condition of one row: of the place in the function's arguments, or of another."""
    order = buckets.order
    namespace = numbered(1, len(order.namespace))
    place = place or numbered(1 + len(namespace), len(order.position))
    at_level = fill("level = {level}", level=level)
    return conjunction([at_level, *order.in_namespace(namespace), order.is_at(place)])


def _fold(buckets: Buckets) -> Composed:
    order, layout = buckets.order, buckets.layout
    columns = buckets.columns
    names = [name for name, _ in buckets.totals]
    of_one = [fill("one.{k}", k=name) for name in columns]
    namespace, place = of_one[: len(order.namespace)], of_one[len(order.namespace) :]
    is_this = conjunction([SQL("level = 1"), *order.in_namespace(namespace), order.is_at(place)])
    return fill(
        "  deltas := 0;\n  groups := 0;\n"
        "  IF NOT ({can_fold}) THEN\n    RETURN;\n  END IF;\n"
        # In other files may be other rows, or the same in another order: those of a restored database.
        "  IF {is_reset} OR NOT ({has_files}) THEN\n    groups := {rebuild}();\n    RETURN;\n  END IF;\n"
        "  FOR one IN {taken_in} LOOP\n"
        "    deltas := one.consumed;\n"
        "    IF one.place IS NULL THEN\n"
        "      PERFORM {cut}({tail}, 1);\n"
        "      CONTINUE;\n"
        "    END IF;\n"
        "    groups := groups + 1;\n"
        "    SELECT n INTO size FROM {table} WHERE {is_this};\n"
        "    IF size > {most} THEN\n      PERFORM {cut}({of_one}, 1);\n"
        "    ELSIF size < {least} THEN\n      PERFORM {join}({of_one});\n    END IF;\n"
        "  END LOOP;\n",
        is_reset=layout.is_reset(), has_files=buckets.has_files(), rebuild=layout.object("rebuild"),
        can_fold=conjunction([layout.is_complete(), *layout.is_whole()]),
        taken_in=_taken_in(buckets, names), cut=layout.object("cut"), join=layout.object("join"),
        tail=comma([*namespace, *(fill("NULL::{t}", t=order.type_of(name)) for name in order.position)]),
        of_one=comma(of_one), table=buckets.table, is_this=is_this,
        most=literal(2 * buckets.run_of_items), least=literal(buckets.run_of_items // 2),
    )  # fmt: skip


def _taken_in(buckets: Buckets, names: Sequence[Composable]) -> Composed:
    """Take the deltas, add them to the buckets of all levels, and give the buckets of level 1; NULL for a tail."""
    order, layout = buckets.order, buckets.layout
    gone = fill(
        "gone AS (DELETE FROM {delta} WHERE {counted} RETURNING *)",
        delta=layout.object("delta"), counted=conjunction(layout.counted()),
    )  # fmt: skip
    steps: list[Composable] = [gone]
    steps += [
        fill("void AS (DELETE FROM {delta} WHERE NOT {c})", delta=layout.object("delta"), c=counted)
        for counted in layout.counted()
    ]
    folded = fill("(NOT {current} OR EXISTS (SELECT FROM gone))", current=layout.is_current())
    steps.append(fill("floor AS ({update})", update=raise_floor(layout, folded)))
    for level in range(1, LEVELS + 1):
        source: Composable = SQL("gone") if level == 1 else Identifier(f"level{level - 1}")
        of_source = [fill("g.{k}", k=name) for name in buckets.columns]
        namespace, place = of_source[: len(order.namespace)], of_source[len(order.namespace) :]
        # An item at a place is behind it; a place stands in the levels above as well.
        found = buckets.next_place(literal(level), namespace, place, after=level == 1, more=[SQL("ctid")])
        grouped = [*namespace, *(fill("b.{k}", k=name) for name in order.position), SQL("b.ctid")]
        # A delta has NULL for the sum of NULLs.
        sums = comma(fill("coalesce(sum(g.{n}), 0) AS {n}", n=name) for name in names)
        there = SQL("") if level == 1 else SQL(" WHERE g.place IS NOT NULL")
        this = Identifier(f"level{level}")
        steps.append(
            fill(
                "{this} AS (SELECT {columns}, b.ctid AS place, {sums} FROM {source} AS g"
                " LEFT JOIN LATERAL {found} AS b ON true{there} GROUP BY {grouped})",
                this=this, columns=comma(grouped[:-1]), sums=sums, source=source, found=found, there=there,
                grouped=comma(grouped),
            )
        )  # fmt: skip
        steps.append(
            fill(
                "{step} AS (UPDATE {table} AS b SET {changes} FROM {this} AS l WHERE b.ctid = l.place)",
                step=Identifier(f"written{level}"), table=buckets.table, this=this,
                changes=comma(fill("{n} = b.{n} + l.{n}", n=name) for name in names),
            )
        )  # fmt: skip
    return fill(
        "WITH {steps}\n    SELECT *, (SELECT count(*) FROM gone) AS consumed FROM level1 ORDER BY {by}",
        steps=SQL(",\n    ").join(steps), by=comma([*order.namespace, order.order_by()]),
    )  # fmt: skip
