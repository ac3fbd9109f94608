"""An ordered aggregate for tests without a database: composite key and primary key, one namespace, two sums."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Date, DateTime, Integer, MetaData, Numeric, Table, Text
from sqlalchemy.dialects import postgresql

from tallystick import Tally

event = Table(
    "event",
    MetaData(),
    Column("region", Text, primary_key=True),
    Column("id", BigInteger, primary_key=True),
    Column("user_id", Integer),
    Column("name", Text),
    Column("at", DateTime(timezone=True)),
    Column("day", Date),
    Column("minutes", Integer),
    Column("price", Numeric(10, 2)),
    Column("gone", Boolean),
)
tally = Tally()
by_name = tally.ordered(
    "by_name",
    event,
    namespace=[event.c.user_id],
    key=[event.c.name, event.c.minutes.desc()],
    sums={"spent": event.c.minutes, "paid": event.c.price},
    where=event.c.gone.is_(False),
)
by_day = tally.ordered("by_day", event, namespace=[event.c.user_id, event.c.region], key=[event.c.day])
by_pk = tally.ordered("by_pk", event)


def compiled(statement: Any) -> Any:
    """The statement as it would be sent, with its parameters."""
    return statement.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
