"""Run the application: ``python -m app``.

Exit codes: 0 after SIGTERM or SIGINT, 2 when an environment variable is missing or wrong, 1 when the
port cannot be listened on.
"""

import asyncio
import os
import sys

from .journal import write_logs_to_stdout
from .settings import SettingsError, settings_from


def main() -> int:
    try:
        settings = settings_from(os.environ)
    except SettingsError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    # Imported only now: a wrong variable is told without loading the libraries of the servers first.
    from .server import serve

    write_logs_to_stdout(settings.secrets())
    try:
        asyncio.run(serve(settings))
    except OSError as error:
        print(f"error: cannot listen on {settings.host}:{settings.port}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
