"""Capture: what runs in the writer's transaction, and nothing more than an INSERT.

INSERT and DELETE are captured once per statement from a transition table, UPDATE once per row and only if the image of
a used column changed, TRUNCATE by a marker. Functions run with the rights of the installer, under a fixed search path,
and refuse to be attached to any other table.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg.sql import SQL, Composable, Composed, Identifier

from tallystick.compiler.components import Additive, Sign
from tallystick.compiler.layout import Layout
from tallystick.compiler.text import Statement, canonical, comma, conjunction, dollar_quoted, fill, literal, private
from tallystick.declare.names import trigger_name


def capture_statements(layout: Layout) -> tuple[list[Statement], list[Statement]]:
    """The functions of capture, and the triggers that call them."""
    table = canonical(layout.snapshot.source.name)
    captured: list[tuple[str, Composed, Composed]] = [
        (
            "insert",
            _gather(layout, "insert"),
            fill("AFTER INSERT ON {t} REFERENCING NEW TABLE AS newtab FOR EACH STATEMENT", t=table),
        ),
        (
            "delete",
            _gather(layout, "delete"),
            fill("AFTER DELETE ON {t} REFERENCING OLD TABLE AS oldtab FOR EACH STATEMENT", t=table),
        ),
        ("truncate", _mark(layout), fill("AFTER TRUNCATE ON {t} FOR EACH STATEMENT", t=table)),
    ]
    if layout.snapshot.source.used:
        captured.append(("update", _gather(layout, "update"), fill("AFTER UPDATE ON {t} FOR EACH ROW", t=table)))
    functions = [_source(layout), _row(layout)]
    functions += [_function(layout.object(event), body, layout, event) for event, body, _ in captured]
    functions.append(private(layout.object(name) for name in ("source", "row", *(event for event, _, _ in captured))))
    triggers = [_trigger(layout, event, timing, layout.object(event)) for event, _, timing in captured]
    return functions, triggers


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
        fill("{name} {type}", name=name, type=canonical(key.text))
        for name, key in zip(layout.keys, layout.snapshot.keys, strict=True)
    ]
    columns += [fill("{name} {type}", name=a.name, type=a.type) for a in layout.arguments()]
    used = comma(fill("(source_row).{c} AS {c}", c=Identifier(name)) for name in layout.snapshot.source.used)
    sql = fill(
        "CREATE FUNCTION {f}(source_row {table}) RETURNS TABLE ({columns}) LANGUAGE sql IMMUTABLE PARALLEL SAFE\n"
        "BEGIN ATOMIC\n  SELECT {items} FROM (SELECT {used}) AS {alias}{where};\nEND",
        f=layout.object("row"),
        table=canonical(layout.snapshot.source.name),
        columns=comma(columns) if columns else SQL("present boolean"),
        items=layout.row_items() if columns else SQL("true AS present"),
        used=used, alias=Identifier(layout.shape.alias), where=layout.where(),
    )  # fmt: skip
    return Statement("group key, arguments and filters of one source row", sql)


def _gather(layout: Layout, sign: Sign) -> Composed:
    """INSERT into the delta table what the rows of one statement change, grouped."""
    parts = layout.parts
    values = _Columns()
    # Cheaper than reading the sequence's row. A restored schema without data has a sequence that gave out nothing yet.
    values.add(SQL("epoch"), fill("coalesce(pg_sequence_last_value({epoch}), 0)", epoch=_epoch(layout)))
    for narrow in layout.narrow():
        values.add(SQL("narrow"), narrow)
    if parts.facets:
        values.add(SQL("facet"), SQL("facet"))
    for name in layout.keys:
        values.add(name, name)
    values.add(SQL("n"), SQL("n"))
    main = SQL("CASE WHEN facet = 0 THEN {e} END") if parts.facets else SQL("{e}")
    for additive in parts.additive:
        values.add(additive.name, main.format(e=additive.name))
    for extreme in parts.extremes:
        if sign == "update":
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
        delta=layout.object("delta"), columns=comma(values.names), values=comma(values.values),
        grouped=_grouped(layout, sign), where=_worth_keeping(layout, sign),
    )  # fmt: skip


def _grouped(layout: Layout, sign: Sign) -> Composed:
    parts = layout.parts
    count = Additive(SQL("n"), SQL("bigint"), None)
    items: list[Composable] = [*layout.keys]
    items += [fill("{e} AS {n}", e=part.gathered(sign), n=part.name) for part in [count, *parts.additive]]
    for extreme in parts.extremes:
        if sign == "update":
            items.append(fill("{e} AS {n}", e=extreme.over(SQL("w > 0")), n=extreme.came))
            items.append(fill("{e} AS {n}", e=extreme.over(SQL("w < 0")), n=extreme.went))
        else:
            items.append(fill("{e} AS {n}", e=extreme.over(), n=extreme.came if sign == "insert" else extreme.went))
    rows = _rows(layout, sign)
    grouping: Composable = fill(" GROUP BY {keys}", keys=comma(layout.keys)) if layout.keys else SQL("")
    if parts.facets:
        # One pass over the rows serves the group and, for each facet, the values within the group.
        values = [facet.value for facet in parts.facets]
        items += values
        items.append(fill("{facet} AS facet", facet=_facet_number(values)))
        sets = [comma(layout.keys), *(comma([*layout.keys, value]) for value in values)]
        grouping = fill(
            " GROUP BY GROUPING SETS ({sets})", sets=comma(fill("({columns})", columns=each) for each in sets)
        )
        computed = comma(fill("{e} AS {v}", e=facet.row_value(), v=facet.value) for facet in parts.facets)
        rows = fill("(SELECT *, {computed} FROM {rows} AS o)", computed=computed, rows=rows)
    if not layout.keys:
        grouping = fill("{grouping} HAVING count(*) > 0", grouping=grouping)  # no row from no rows
    return fill("SELECT {items} FROM {rows} AS r{grouping}", items=comma(items), rows=rows, grouping=grouping)


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
    if sign == "update":
        changed: list[Composable] = [fill("{a} <> 0", a=part.name) for part in parts.additive]
        changed += [fill("NOT record_eq(ROW({i}), ROW({d}))", i=e.came, d=e.went) for e in parts.extremes]
        if changed and parts.facets:
            changed = [fill("facet = 0 AND ({any})", any=SQL(" OR ").join(changed))]
        tests.append(fill("({any})", any=SQL(" OR ").join([SQL("n <> 0"), *changed])))
    return fill("\n  WHERE {tests}", tests=conjunction(tests)) if tests else SQL("")


def _rows(layout: Layout, sign: Sign) -> Composed:
    if sign == "update":
        return fill(
            "(SELECT -1 AS w, o.* FROM {row}(OLD) AS o UNION ALL SELECT 1, o.* FROM {row}(NEW) AS o)",
            row=layout.object("row"),
        )
    table = SQL("newtab") if sign == "insert" else SQL("oldtab")
    return fill("(SELECT o.* FROM {table} AS t, {row}(t.*) AS o)", table=table, row=layout.object("row"))


def _mark(layout: Layout) -> Composed:
    return fill(
        "INSERT INTO {reset} (aggregate, epoch) VALUES ({name}, nextval({epoch}))",
        reset=layout.own("reset"),
        name=literal(layout.name),
        epoch=_epoch(layout),
    )


def _epoch(layout: Layout) -> Composed:
    return fill("{name}::regclass", name=literal(layout.own("epoch").as_string(None)))


class _Columns:
    def __init__(self) -> None:
        self.names: list[Composable] = []
        self.values: list[Composable] = []

    def add(self, name: Composable, value: Composable) -> None:
        self.names.append(name)
        self.values.append(value)


def _function(name: Identifier, body: Composable, layout: Layout, event: str) -> Statement:
    text = fill(
        "\nBEGIN\n"
        "  IF TG_RELID <> {source}() THEN\n"
        "    RAISE insufficient_privilege USING MESSAGE = {message};\n"
        "  END IF;\n"
        "  {body};\n"
        "  RETURN NULL;\n"
        "END\n",
        source=layout.object("source"),
        message=literal(f'aggregate "{layout.name}": its capture functions serve its own source table only'),
        body=body,
    )
    sql = fill(
        "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
        "SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1\nAS {body}",
        name=name, body=dollar_quoted(text),
    )  # fmt: skip
    return Statement(f"captures {event.upper()}", sql)


def _trigger(layout: Layout, event: str, timing: Composed, function: Identifier) -> Statement:
    changed: Composable = SQL("")
    if event == "update":
        # The image, not the value: 1.0 and 1.00 are equal and make averages of different scale.
        old, new = (
            comma(fill("{r}.{c}", r=SQL(r), c=Identifier(c)) for c in layout.snapshot.source.used)
            for r in ("OLD", "NEW")
        )
        changed = fill(" WHEN (record_image_ne(ROW({old}), ROW({new})))", old=old, new=new)
    sql = fill(
        "CREATE TRIGGER {name} {timing}{changed}\nEXECUTE FUNCTION {function}()",
        name=Identifier(trigger_name(layout.schema, layout.name, event)),
        timing=timing, changed=changed, function=function,
    )  # fmt: skip
    return Statement(f"on {event.upper()}", sql)
