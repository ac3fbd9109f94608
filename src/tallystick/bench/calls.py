"""How long a read takes its client: round trip and decoding included."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, Select


def prepared(
    connection: psycopg.Connection[tuple[Any, ...]], engine: Engine, read: Select[Any]
) -> Callable[[Mapping[str, Any]], float]:
    """A call that executes a read and fetches its rows, and returns how long that took in milliseconds."""
    compiled = read.compile(dialect=engine.dialect)
    text = compiled.string.encode()
    cursor = connection.cursor()

    def call(values: Mapping[str, Any]) -> float:
        bound = compiled.construct_params(values)
        started = time.perf_counter()
        cursor.execute(text, bound, prepare=True).fetchall()
        return (time.perf_counter() - started) * 1000

    return call
