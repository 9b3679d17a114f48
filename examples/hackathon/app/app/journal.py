"""Logging: one line per record on stdout, whatever the record holds, and no secret in it."""

import logging
import sys
import time
import traceback


class OneLineFormatter(logging.Formatter):
    """Formats a record as one line: UTC time, level, message; an exception is folded to its last frame."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        line = f"{self.formatTime(record)} {record.levelname} {record.getMessage()}"
        if record.exc_info and record.exc_info[1] is not None:
            line += f" ({folded(record.exc_info[1])})"
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return "\\n".join(line.splitlines())


def folded(error: BaseException) -> str:
    """An exception in one phrase: type, message, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def write_logs_to_stdout(secrets: tuple[str, ...]) -> None:
    """Send the records of the whole process to stdout, in the form of :class:`OneLineFormatter`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(OneLineFormatter(secrets))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
