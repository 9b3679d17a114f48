"""The lines of a process's log: JSON for machines, or text for people; one line per record either way.

A JSON line has ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, ``process`` and ``site``; ``error`` with
the traceback of an exception; and of the work at hand ``operation``, ``correlation`` and ``trace`` (``bus.scope``).
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from bus import scope

LogFormat = Literal["auto", "text", "json"]
VENDORS = ("nats", "botocore", "boto3", "urllib3", "aiohttp", "psycopg", "asyncio", "opentelemetry")


class TextLines(logging.Formatter):
    """One line per record, tracebacks included, so that a log can be read and searched line by line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).replace("\n", " | ")
        about = " ".join(f"{name}={value}" for name, value in scope.fields().items() if name != "trace")
        return f"{line} [{about}]" if about else line


class JsonLines(logging.Formatter):
    """One JSON object per record."""

    def __init__(self, *, process: str, site: str) -> None:
        super().__init__()
        self._about = {"process": process, "site": site}

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        document = {
            "time": at,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._about,
            **scope.fields(),
        }
        if record.exc_info:
            document["error"] = self.formatException(record.exc_info)
        return json.dumps(document, ensure_ascii=False)


def log_lines(level: str, *, format: LogFormat, process: str, site: str) -> None:
    """Have this process log to stderr: as ``format`` says, ``auto`` being text at a terminal and JSON elsewhere."""
    text = format == "text" or (format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines() if text else JsonLines(process=process, site=site))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # vendor libraries log requests at debug level, credentials included
    for vendor in VENDORS:
        logging.getLogger(vendor).setLevel(logging.WARNING)
