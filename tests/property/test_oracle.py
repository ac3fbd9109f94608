"""The oracle sees what is wrong: a proof that never fails proves nothing."""

from typing import LiteralString

import pytest
from sqlalchemy import Engine

from tallystick import Tally
from tests.conftest import Connect
from tests.oracle import Oracle, assert_exact, differences

WRONGS: dict[str, tuple[LiteralString, set[str]]] = {
    "a total": ("UPDATE tally.sums__state SET n = n + 1 WHERE k1 = 1", {"sums: view has", "sums: view lacks"}),
    "a group too many": ("UPDATE item SET k = 3 WHERE k = 2", {"sums: view has", "sums: view lacks"}),
    "a group too few": ("DELETE FROM tally.sums__state WHERE k1 = 2", {"sums: view lacks"}),
    "the direct half": (
        "CREATE OR REPLACE VIEW tally.sums__direct AS"
        " SELECT k, count(*) AS items, sum(n) AS total FROM item WHERE k = 1 GROUP BY k",
        {"sums: view has", "sums: direct lacks"},
    ),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_oracle_tells_which_halves_differ(engine: Engine, connect: Connect, wrong: str) -> None:
    statement, expected = WRONGS[wrong]
    connection = connect(autocommit=True)
    connection.execute("CREATE TABLE item (k integer, n integer); INSERT INTO item VALUES (1, 5), (1, 6), (2, NULL)")
    tally = Tally()
    tally.grouped("sums", "SELECT k, count(*) AS items, sum(n) AS total FROM item GROUP BY k")
    tally.install(engine)
    tally.backfill(engine)
    oracle = Oracle(connection, tally)
    assert oracle.differences() == differences(connection, tally) == []
    connection.execute("ALTER TABLE item DISABLE TRIGGER USER")
    connection.execute(statement)
    found = {what for what, _ in differences(connection, tally)}
    assert found >= expected
    assert {what for what, _ in oracle.differences()} == found
    with pytest.raises(AssertionError, match="sums: "):
        assert_exact(engine, tally)
