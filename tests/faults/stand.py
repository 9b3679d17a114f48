"""``calque up`` for fault tests: parts are run by :mod:`tests.faults.armed`, and soon again, however often they die."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from hub.cli.main import main
from hub.stack import embedded
from hub.stack.supervisor import Backoff
from tests.faults import armed

SOON = Backoff(first=0.1, longest=0.4)
PROGRAMS = embedded.Programs(interpreter=(sys.executable, "-P", str(Path(armed.__file__).resolve())))

if __name__ == "__main__":
    made = functools.partial(embedded.EmbeddedStack, programs=PROGRAMS, backoff=SOON)
    setattr(embedded, "EmbeddedStack", made)  # noqa: B010 - the command takes the class from there
    main()
