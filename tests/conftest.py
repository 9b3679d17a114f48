"""Fixtures that several rooms share are in `tests/servers.py`."""

from __future__ import annotations

pytest_plugins = ["tests.servers"]
