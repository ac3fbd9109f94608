"""What a session knows behind a lock that it has waited for."""

from __future__ import annotations

from sqlalchemy import Engine

from tallystick.store.catalog import relation_exists
from tallystick.store.connection import transaction
from tallystick.store.locks import lock_installation
from tests.conftest import Connect
from tests.isolation.stage import Beside


def test_what_others_have_made_is_known_behind_the_installers_lock(beside: Beside, connect: Connect) -> None:
    """A session remembers that there was no such table, and an advisory lock does not tell it otherwise."""
    holder = connect()

    def looks(engine: Engine) -> list[bool]:
        with transaction(engine) as cursor:
            before = relation_exists(cursor, "public.late")
        with holder.cursor() as cursor:
            lock_installation(cursor, "tally")
            cursor.execute("CREATE TABLE public.late ()")
        with transaction(engine) as cursor:
            lock_installation(cursor, "tally")
            return [before, relation_exists(cursor, "public.late")]

    looking = beside.start(looks).until_settled()
    assert looking.is_waiting
    holder.commit()
    assert looking.result() == [False, True]
