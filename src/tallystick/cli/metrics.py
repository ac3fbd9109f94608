"""Metrics of a worker and of what it works on, for Prometheus. They are gathered when they are asked for.

The client of Prometheus is an extra: this module is imported only where metrics are wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping

import psycopg
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from tallystick.errors import TallyError, UsageError
from tallystick.maintain.worker import Done
from tallystick.store import aggregates, backlog, workers
from tallystick.store.connection import Cursor, transaction

MOST_ROWS = 10_000_000
"""Where counting a backlog ends."""

_log = logging.getLogger("tallystick.metrics")


def serve(engine: Engine, schema: str, done: Done, address: str) -> None:
    """Answer on an address, from a thread of its own, until the process ends.

    Args:
        address: host:port, or a port on the loopback.
    Raises:
        UsageError: it is none, or somebody else answers there.
    """
    host, _, port = address.rpartition(":")
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise UsageError(f'"{address}" is no address for metrics.', hint="Write it like 127.0.0.1:9188.")
    registry = CollectorRegistry()
    registry.register(_Gathered(engine, schema, done))
    try:
        start_http_server(int(port), host.strip("[]") or "127.0.0.1", registry)
    except OSError as error:
        raise UsageError(f"metrics cannot be served on {address}: {error.strerror}.", hint="Choose another.") from error


class _Gathered(Collector):
    """What the worker has done so far, and how the database stands at this moment."""

    def __init__(self, engine: Engine, schema: str, done: Done) -> None:
        self._engine, self._schema, self._done = engine, schema, done
        self._alone = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: registering asks the database for nothing."""
        return ()

    def collect(self) -> Iterable[Metric]:
        done = self._done
        yield _counter("tally_folds", "Folds by this worker.", done.folds)
        yield _counter("tally_folded_deltas", "Deltas that this worker has folded.", done.deltas)
        yield _counter("tally_fold_seconds", "Time that this worker has spent in folds.", done.fold_s)
        yield _counter("tally_failures", "Tasks of this worker that failed.", done.failures, "subject")
        yield _counter("tally_drifted_groups", "Groups that this worker has found to drift.", done.drifted)
        up = GaugeMetricFamily("tally_up", "Whether the database could be asked.")
        with self._alone:
            try:
                with transaction(self._engine, snapshot=True, read_only=True) as cursor:
                    found = [*_aggregates(cursor, self._schema), _workers(cursor, self._schema)]
            except (TallyError, psycopg.Error) as error:
                _log.warning("metrics are incomplete", extra={"error": str(error).strip()})
                found = []
        up.add_metric([], 1 if found else 0)
        yield up
        yield from found


def _aggregates(cursor: Cursor, schema: str) -> Iterable[Metric]:
    rows = GaugeMetricFamily("tally_backlog_rows", "Rows that wait to be folded.", labels=["aggregate"])
    age = GaugeMetricFamily(
        "tally_backlog_age_seconds", "For how long a worker has seen rows wait.", labels=["aggregate"]
    )
    phase = GaugeMetricFamily("tally_phase", "1 for the phase of an aggregate.", labels=["aggregate", "phase"])
    kept = GaugeMetricFamily("tally_serving_kept", "Whether readers get the kept half.", labels=["aggregate"])
    waiting = {each.name: each for each in backlog.look(cursor, schema, MOST_ROWS)}
    for name, each in waiting.items():
        rows.add_metric([name], each.rows)
        age.add_metric([name], each.age_s if each.rows else 0)
    for found in aggregates.every(cursor, schema):
        is_stale = found.name in waiting and waiting[found.name].is_stale
        phase.add_metric([found.name, found.phase], 1)
        kept.add_metric([found.name], int(found.serving == "kept" and not is_stale))
    return [rows, age, phase, kept]


def _workers(cursor: Cursor, schema: str) -> Metric:
    seen = GaugeMetricFamily(
        "tally_worker_heartbeat_age_seconds", "Age of a worker's last heartbeat.", labels=["host", "pid"]
    )
    for each in workers.every(cursor, schema):
        seen.add_metric([each.host, str(each.pid)], each.seen_s)
    return seen


def _counter(name: str, documentation: str, values: Mapping[str, float], label: str = "aggregate") -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for value in list(values.items()):
        family.add_metric([value[0]], value[1])
    return family
