"""Logs of long-running commands on stderr: a line of text, or one JSON object, for each record and what it says."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_BARE = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


@contextmanager
def logging_to_stderr(log_format: LogFormat, *, verbose: bool) -> Iterator[None]:
    """Write what the package logs to stderr, and nowhere else. `verbose`: what goes without saying, too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format is LogFormat.JSON else _Text())
    logger = logging.getLogger("tallystick")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was passed as `extra`."""
    return {name: value for name, value in vars(record).items() if name not in _BARE}


def _at(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        said = [
            f"{name}={json.dumps(value, default=str, ensure_ascii=False)}" for name, value in _fields(record).items()
        ]
        line = " ".join([_at(record), record.levelname, record.getMessage(), *said])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {"at": _at(record), "level": record.levelname.lower(), "message": record.getMessage(), **_fields(record)}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
