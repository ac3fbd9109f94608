"""The command line in tests: an application's directory, and runs of `tally` in this process."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tallystick.cli import main

ORDERS = """
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, region text, total numeric, placed date);
INSERT INTO orders (region, total, placed)
SELECT CASE WHEN i % 5 > 0 THEN 'r' || i % 5 END, i * 1.25, date '2025-01-01' + i % 7 FROM generate_series(1, 700) AS i;
"""
SHOP = """
from sqlalchemy import Column, Date, Integer, MetaData, Numeric, Table, Text, func, select
from tallystick import Tally

orders = Table(
    "orders", MetaData(),
    Column("id", Integer, primary_key=True), Column("region", Text), Column("total", Numeric), Column("placed", Date),
)
tally = Tally()
tally.grouped(
    "by_region",
    select(orders.c.region, func.count().label("orders"), func.sum(orders.c.total).label("total"))
    .group_by(orders.c.region),
)
tally.grouped("by_day", "SELECT placed, count(*) AS orders, avg(total) AS average FROM orders GROUP BY placed")
empty = Tally()
not_a_tally = 5
print("this line is the module's own")
"""


@dataclass
class Ran:
    """One run of `tally`."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@contextmanager
def application(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An application's directory, the current one; what is imported from it is forgotten at the end."""
    before = set(sys.modules)
    patch.chdir(folder)
    patch.setattr(sys, "path", list(sys.path))
    patch.setattr(sys, "dont_write_bytecode", True)
    (folder / "shop.py").write_text(SHOP)
    yield folder
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(folder):
            del sys.modules[name]


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> Ran:
    """Run `tally` in this process, at no terminal."""
    capsys.readouterr()
    code = main(arguments)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    return Ran(code, printed.out, printed.err)
