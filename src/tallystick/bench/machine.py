"""On what machine a benchmark ran: numbers mean nothing without it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import psycopg
from sqlalchemy import Engine

from tallystick.store.connection import transaction

SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "work_mem", "jit")


def describe(engine: Engine) -> dict[str, object]:
    """Processor, memory, PostgreSQL and its settings, driver. The machine is the client's; so is the load."""
    with transaction(engine, read_only=True) as cursor:
        rows = cursor.execute(
            "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", (["server_version", *SETTINGS],)
        ).fetchall()
        settings = dict(rows)
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "postgresql": settings.pop("server_version"),
        "unix_socket": engine.url.host is None or engine.url.host.startswith("/"),
        "settings": settings,
        "python": platform.python_version(),
        "driver": f"psycopg {psycopg.__version__} ({psycopg.pq.__impl__}), SQLAlchemy {version('sqlalchemy')}",
    }


def _cpu() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
