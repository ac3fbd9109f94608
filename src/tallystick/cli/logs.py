"""Logs of long-running commands on stderr: a line of text, or one JSON object, for each record and what it says."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

_BARE = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogFormat(StrEnum):
    """How records are written."""

    TEXT = "text"
    JSON = "json"


def log_to_stderr(log_format: LogFormat, *, verbose: bool) -> None:
    """Write what the package logs to stderr, from now on. `verbose`: what goes without saying, too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if log_format is LogFormat.JSON else _Text())
    logger = logging.getLogger("tallystick")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)


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
