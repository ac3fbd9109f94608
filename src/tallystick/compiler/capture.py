"""Capture: what runs in the writer's transaction, and nothing more than an INSERT.

INSERT and DELETE are captured once per statement from a transition table, UPDATE once per row and only if the image of
a used column changed, TRUNCATE by a marker. Where statement triggers do not fire (partitions, replication), INSERT and
DELETE are captured once per row too. Functions run with the rights of the installer, under a fixed search path, refuse
to be attached to any other table, and do nothing once an object that they need is gone: a writer must not fail for us.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from tallystick.compiler.components import Additive, Extreme, Sign
from tallystick.compiler.layout import Layout
from tallystick.compiler.text import (
    NO_SQL,
    Statement,
    canonical,
    comma,
    conjunction,
    dollar_quoted,
    fill,
    filtered,
    literal,
    private,
)
from tallystick.compiler.triggers import triggers


def capture_statements(layout: Layout) -> tuple[list[Statement], list[Statement]]:
    """The functions of capture, and the triggers that call them."""
    source = layout.snapshot.source
    plain, placed = _bodies(layout, []), _bodies(layout, layout.places) if layout.places else {}
    functions, names = [_source(layout), _row(layout)], ["source", "row", "guard", *plain, "truncate"]
    if not source.is_partitioned:
        functions.append(_refill(layout))
        names.append("refill")
    functions.append(_guard(layout))
    functions += [_function(layout, event, body, placed.get(event)) for event, body in plain.items()]
    functions.append(_function(layout, "truncate", _mark(layout)))
    functions.append(private(layout.object(name) for name in names))
    return functions, list(triggers(layout))


def _bodies(layout: Layout, places: Sequence[SQL]) -> dict[str, Composable]:
    """What the functions of capture do, by name.

    Args:
        places: columns for the primary key of the row, while a backfill has to know where it stands.
    """
    change = append_rows(layout, "change", _changed_rows(layout, places), SQL("TG_RELID"), places=places)
    bodies: dict[str, Composable] = {"change": change}
    statements: list[tuple[Sign, SQL]] = [("insert", SQL("newtab")), ("delete", SQL("oldtab"))]
    if not layout.snapshot.source.is_partitioned:
        for event, table in statements:
            rows = fill(
                "(SELECT {columns} FROM {t} AS t, {row}(t.*) AS o{place})",
                columns=SQL("o.*, q.*" if places else "o.*"), t=table, row=layout.object("row"),
                place=fill(", {f}(t.*) AS q", f=layout.object("place")) if places else NO_SQL,
            )  # fmt: skip
            bodies[event] = append_rows(layout, event, rows, SQL("TG_RELID"), places=places)
    return bodies


def _source(layout: Layout) -> Statement:
    """The table as a constant that follows renames and restores, folded into the plan of each check."""
    sql = fill(
        "CREATE FUNCTION {f}() RETURNS regclass LANGUAGE sql IMMUTABLE PARALLEL SAFE\n"
        "BEGIN ATOMIC SELECT {table}::regclass; END",
        f=layout.object("source"), table=literal(layout.snapshot.source.name),
    )  # fmt: skip
    return Statement("the table that may call the capture functions", sql)


def _row(layout: Layout) -> Statement:
    columns: list[Composable] = [
        fill("{name} {type}", name=name, type=canonical(key.stored))
        for name, key in zip(layout.keys, layout.snapshot.keys, strict=True)
    ]
    columns += [fill("{name} {type}", name=a.name, type=a.type) for a in layout.arguments()]
    used = comma(fill("(source_row).{c} AS {c}", c=Identifier(name)) for name in layout.snapshot.source.used)
    # Of a row that it is given as a value, the planner computes all items, whatever the WHERE clause says.
    condition = canonical(layout.shape.where) if layout.shape.where else None
    sql = fill(
        "CREATE FUNCTION {f}(source_row {table}) RETURNS TABLE ({columns}) LANGUAGE sql IMMUTABLE PARALLEL SAFE\n"
        "BEGIN ATOMIC\n  SELECT {items} FROM (SELECT {used}) AS {alias}{where};\nEND",
        f=layout.object("row"),
        table=canonical(layout.snapshot.source.name),
        columns=comma(columns) if columns else SQL("present boolean"),
        items=layout.row_items(condition) if columns else SQL("true AS present"),
        used=used, alias=Identifier(layout.shape.alias), where=layout.where(),
    )  # fmt: skip
    return Statement("group key, arguments and filters of one source row", sql)


def _guard(layout: Layout) -> Statement:
    """What the triggers run, as PostgreSQL keeps it: by reference. Nothing that it needs can be dropped without it."""
    rows = fill(
        "(SELECT 1 AS w, o.* FROM {row}(NULL::{table}) AS o WHERE {source}() IS NOT NULL)",
        source=layout.object("source"), row=layout.object("row"), table=canonical(layout.snapshot.source.name),
    )  # fmt: skip
    append = append_rows(layout, "change", rows, fill("{source}()", source=layout.object("source")))
    needed: list[Composable] = [append, _insert_mark(layout)]
    if not layout.snapshot.source.is_partitioned:
        needed.append(fill("SELECT {refill}()", refill=layout.object("refill")))
    sql = fill(
        "CREATE FUNCTION {f}() RETURNS void LANGUAGE sql\nBEGIN ATOMIC\n  {needed};\nEND",
        f=layout.object("guard"), needed=SQL(";\n  ").join(needed),
    )  # fmt: skip
    return Statement("never called: while it is there, so is all that the triggers need", sql)


def _refill(layout: Layout) -> Statement:
    rows = append_rows(layout, "insert", layout.source_rows(), fill("{f}()", f=layout.object("source")))
    sql = fill(
        "CREATE FUNCTION {f}() RETURNS void LANGUAGE sql\nBEGIN ATOMIC\n  {rows};\nEND",
        f=layout.object("refill"), rows=rows,
    )  # fmt: skip
    return Statement("counts what other triggers have put into the table since it was truncated", sql)


def append_rows(
    layout: Layout,
    sign: Sign,
    rows: Composable,
    partition: Composable,
    *,
    places: Sequence[SQL] = (),
    into: Composable | None = None,
) -> Composed:
    """INSERT into the delta table what rows change, grouped.

    Args:
        sign: whether they came, went, or (with a weight `w`) both.
        rows: key, arguments and filters of each.
        partition: that they are in.
        places: further columns that they are grouped by, and which are stored.
        into: another table of the same columns.
    """
    parts = layout.parts
    values = _Columns()
    # Cheaper than reading the sequence's row. A restored schema without data has a sequence that gave out nothing yet.
    values.add(SQL("epoch"), fill("coalesce(pg_sequence_last_value({epoch}), 0)", epoch=_epoch(layout)))
    if layout.snapshot.source.is_partitioned:
        values.add(SQL("partition"), partition)
    for narrow in layout.narrow():
        values.add(SQL("narrow"), narrow)
    if parts.facets:
        values.add(SQL("facet"), SQL("facet"))
    for name in [*layout.keys, *places]:
        values.add(name, name)
    values.add(SQL("n"), SQL("n"))
    main = SQL("CASE WHEN facet = 0 THEN {e} END") if parts.facets else SQL("{e}")
    for additive in parts.additive:
        values.add(additive.name, main.format(e=additive.name))
    for extreme in parts.extremes:
        if sign == "change":
            # A row whose value stays in its group changes no extreme, whatever else of it changes.
            for name, other in ((extreme.came, extreme.went), (extreme.went, extreme.came)):
                changed = fill("CASE WHEN NOT record_eq(ROW({a}), ROW({b})) THEN {a} END", a=name, b=other)
                values.add(name, main.format(e=changed))
        else:
            name = extreme.came if sign == "insert" else extreme.went
            values.add(name, main.format(e=name))
    for facet in parts.facets:
        values.add(facet.value, facet.value)
    return fill(
        "INSERT INTO {delta} ({columns})\n  SELECT {values}\n  FROM ({grouped}) AS g{where}",
        delta=into or layout.object("delta"), columns=comma(values.names), values=comma(values.values),
        grouped=_grouped(layout, sign, rows, [*layout.keys, *places]), where=_worth_keeping(layout, sign),
    )  # fmt: skip


def _grouped(layout: Layout, sign: Sign, rows: Composable, keys: Sequence[SQL]) -> Composed:
    parts = layout.parts
    count = Additive(SQL("n"), SQL("bigint"), None)
    items: list[Composable] = [*keys]
    if layout.has_single_rows and sign != "change":
        items += [fill("{e} AS {n}", e=part.of_row(sign), n=part.name) for part in [count, *parts.additive]]
        return fill("SELECT {items} FROM {rows} AS r", items=comma(items), rows=rows)
    items += [fill("{e} AS {n}", e=part.gathered(sign), n=part.name) for part in [count, *parts.additive]]
    for extreme in parts.extremes:
        if sign == "change":
            items.append(fill("{e} AS {n}", e=_over(layout, extreme, SQL("w > 0")), n=extreme.came))
            items.append(fill("{e} AS {n}", e=_over(layout, extreme, SQL("w < 0")), n=extreme.went))
        else:
            name = extreme.came if sign == "insert" else extreme.went
            items.append(fill("{e} AS {n}", e=_over(layout, extreme), n=name))
    grouping: Composable = fill(" GROUP BY {keys}", keys=comma(keys)) if keys else SQL("")
    if parts.facets:
        # One pass over the rows serves the group and, for each facet, the values within the group.
        values = [facet.value for facet in parts.facets]
        items += values
        items.append(fill("{facet} AS facet", facet=_facet_number(values)))
        sets = [comma(keys), *(comma([*keys, value]) for value in values)]
        grouping = fill(
            " GROUP BY GROUPING SETS ({sets})", sets=comma(fill("({columns})", columns=each) for each in sets)
        )
        computed = comma(fill("{e} AS {v}", e=facet.row_value(), v=facet.value) for facet in parts.facets)
        rows = fill("(SELECT *, {computed} FROM {rows} AS o)", computed=computed, rows=rows)
    if not keys:
        grouping = fill("{grouping} HAVING count(*) > 0", grouping=grouping)  # no row from no rows
    return fill("SELECT {items} FROM {rows} AS r{grouping}", items=comma(items), rows=rows, grouping=grouping)


def _over(layout: Layout, extreme: Extreme, *conditions: Composable) -> Composed:
    """The best value, ordered by the collation of the state's column: its own name would not follow a rename."""
    if not extreme.is_collated:
        return extreme.over(*conditions)
    column = fill("(NULL::{state}).{m}", state=layout.object("state"), m=extreme.kept)
    call = fill("{best}(coalesce({x}, {column}))", best=extreme.best, x=extreme.argument, column=column)
    return filtered(call, extreme.condition, *conditions)


def _facet_number(values: Sequence[Composable]) -> Composed:
    """0 for the row of the group, i for the rows of facet i."""
    cases = [fill("WHEN GROUPING({v}) = 0 THEN {i}", v=value, i=literal(i)) for i, value in enumerate(values, start=1)]
    return fill("CASE {cases} ELSE 0 END", cases=SQL(" ").join(cases))


def _worth_keeping(layout: Layout, sign: Sign) -> Composable:
    """Leave out values that are NULL, and whatever an update does not change."""
    parts = layout.parts
    tests: list[Composable] = [
        fill("(facet <> {i} OR {v} IS NOT NULL)", i=literal(facet.index), v=facet.value) for facet in parts.facets
    ]
    if sign == "change":
        changed: list[Composable] = [fill("{a} <> 0", a=part.name) for part in parts.additive]
        changed += [fill("NOT record_eq(ROW({i}), ROW({d}))", i=e.came, d=e.went) for e in parts.extremes]
        if changed and parts.facets:
            changed = [fill("facet = 0 AND ({any})", any=SQL(" OR ").join(changed))]
        tests.append(fill("({any})", any=SQL(" OR ").join([SQL("n <> 0"), *changed])))
    return fill("\n  WHERE {tests}", tests=conjunction(tests)) if tests else SQL("")


def _changed_rows(layout: Layout, places: Sequence[SQL]) -> Composed:
    """The row that goes, with weight -1, and the row that comes."""
    old, new = (
        fill(", {place}({row}) AS q", place=layout.object("place"), row=SQL(row)) if places else NO_SQL
        for row in ("OLD", "NEW")
    )
    return fill(
        "(SELECT -1 AS w, {columns} FROM {row}(OLD) AS o{old} WHERE TG_OP <> 'INSERT'"
        " UNION ALL SELECT 1, {columns} FROM {row}(NEW) AS o{new} WHERE TG_OP <> 'DELETE')",
        columns=SQL("o.*, q.*" if places else "o.*"), row=layout.object("row"), old=old, new=new,
    )  # fmt: skip


def _mark(layout: Layout) -> Composable:
    """A marker. Other triggers may have filled the table again before ours: then these rows are counted behind it."""
    name = literal(layout.name)
    if not layout.snapshot.source.is_partitioned:
        return fill(
            "{mark};\n  IF pg_relation_size({source}()) > 0 THEN\n    PERFORM {refill}();\n  END IF",
            mark=_insert_mark(layout), source=layout.object("source"), refill=layout.object("refill"),
        )  # fmt: skip
    # A partition that is truncated together with the whole adds nothing, unless something came into it since.
    return fill(
        "IF TG_RELID = {source}() THEN\n    {whole};\n"
        "    INSERT INTO {reset} (aggregate, epoch, partition) SELECT {name}, nextval({epoch}), relid\n"
        "    FROM pg_partition_tree({source}()) WHERE isleaf AND pg_relation_size(relid) > 0;\n"
        "  ELSIF NOT EXISTS (SELECT FROM {reset} AS r WHERE aggregate = {name} AND partition IS NULL"
        " AND xact = pg_current_xact_id()\n"
        "    AND NOT EXISTS (SELECT FROM {delta} AS d WHERE d.partition = TG_RELID AND d.epoch >= r.epoch)) THEN\n"
        "    INSERT INTO {reset} (aggregate, epoch, partition) VALUES ({name}, nextval({epoch}), TG_RELID);\n"
        "  END IF",
        source=layout.object("source"), whole=_insert_mark(layout), reset=layout.own("reset"),
        name=name, delta=layout.object("delta"), epoch=_epoch(layout),
    )  # fmt: skip


def _insert_mark(layout: Layout) -> Composed:
    return fill(
        "INSERT INTO {reset} (aggregate, epoch) VALUES ({name}, nextval({epoch}))",
        reset=layout.own("reset"), name=literal(layout.name), epoch=_epoch(layout),
    )  # fmt: skip


def _epoch(layout: Layout) -> Composed:
    return fill("{name}::regclass", name=_text(layout.own("epoch")))


def _text(name: Identifier) -> Literal:
    """A quoted name as a string constant."""
    return literal(name.as_string(None))


class _Columns:
    def __init__(self) -> None:
        self.names: list[Composable] = []
        self.values: list[Composable] = []

    def add(self, name: Composable, value: Composable) -> None:
        self.names.append(name)
        self.values.append(value)


def _function(layout: Layout, event: str, body: Composable, placed: Composable | None = None) -> Statement:
    """One of the functions of capture.

    Args:
        placed: what it does instead while there is `x__place`, which a backfill makes.
    """
    if placed is not None:
        body = fill(
            "IF to_regproc({place}) IS NULL THEN\n  {plain};\n  ELSE\n  {placed};\n  END IF",
            place=_text(layout.object("place")), plain=body, placed=placed,
        )  # fmt: skip
    text = fill(
        "\nBEGIN\n"
        "  IF to_regprocedure({guard}) IS NULL THEN\n"
        "    RETURN NULL;\n"
        "  END IF;\n"
        "{refusal}"
        "  {body};\n"
        "  RETURN NULL;\n"
        "END\n",
        guard=layout.guard(), refusal=_refusal(layout, event), body=body,
    )  # fmt: skip
    sql = fill(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        "SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1\nAS {body}",
        name=layout.object(event), body=dollar_quoted(text),
    )  # fmt: skip
    purpose = "captures each changed row" if event == "change" else f"captures {event.upper()}"
    return Statement(purpose, sql)


def _refusal(layout: Layout, event: str) -> Composable:
    """Of calls for other tables. A partition that is being detached, or was, calls on: then there is nothing to do."""
    source = layout.object("source")
    if not layout.snapshot.source.is_partitioned:
        return fill(
            "  IF TG_RELID <> {source}() THEN\n"
            "    RAISE insufficient_privilege USING MESSAGE = {message};\n  END IF;\n",
            source=source,
            message=literal(f'aggregate "{layout.name}": its capture functions serve its own source table only'),
        )
    if event == "truncate":
        return SQL("")  # a marker of a partition that is not counted means nothing
    return fill(
        "  IF NOT EXISTS (SELECT FROM pg_partition_ancestors(TG_RELID) AS a (relid) WHERE relid = {source}()) THEN\n"
        "    RETURN NULL;\n  END IF;\n",
        source=source,
    )
