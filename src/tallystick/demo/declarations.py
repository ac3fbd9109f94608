"""What the demo keeps: five aggregates declared with SQLAlchemy, and one as a SQL string."""

from __future__ import annotations

from sqlalchemy import func, select

from tallystick.demo.flights import TALLY_SCHEMA, Flight
from tallystick.maintain.tally import Tally

tally = Tally(schema=TALLY_SCHEMA)

by_carrier = tally.grouped(
    "by_carrier",
    select(
        Flight.carrier,
        Flight.month,
        func.count().label("flights"),
        func.sum(Flight.distance).label("miles"),
        func.avg(Flight.dep_delay).label("avg_delay"),
        func.avg(Flight.air_time).label("avg_air_time"),
    ).group_by(Flight.carrier, Flight.month),
)

by_route = tally.grouped(
    "by_route",
    select(
        Flight.origin,
        Flight.dest,
        func.count().label("flights"),
        func.max(Flight.arr_delay).label("worst_delay"),
        func.min(Flight.air_time).label("fastest"),
    ).group_by(Flight.origin, Flight.dest),
)

delayed = tally.grouped(
    "delayed",
    select(
        Flight.carrier,
        func.count().filter(Flight.arr_delay > 30).label("late"),
        func.avg(Flight.arr_delay).filter(Flight.arr_delay > 30).label("avg_late"),
        func.count().label("flights"),
    ).group_by(Flight.carrier),
)

aircraft_per_day = tally.grouped(
    "aircraft_per_day",
    select(Flight.month, Flight.day, func.count(Flight.tailnum.distinct()).label("aircraft")).group_by(
        Flight.month, Flight.day
    ),
)

totals = tally.grouped(
    "totals",
    select(
        func.count().label("flights"),
        func.count(Flight.dep_time).label("departed"),
        func.sum(Flight.distance).label("miles"),
        func.avg(Flight.arr_delay).label("avg_delay"),
        func.max(Flight.arr_delay).label("worst_delay"),
    ),
)

by_aircraft = tally.grouped(
    "by_aircraft",
    """
    SELECT tailnum, count(*) AS flights, sum(distance) AS miles, sum(air_time) AS minutes,
           bool_or(dep_delay > 600) AS stranded
    FROM demo.flights
    WHERE tailnum IS NOT NULL
    GROUP BY tailnum
    """,
)
