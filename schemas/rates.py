"""Limits of bandwidth as people write them: ``50MiB/s``, ``50M``, ``1.5GiB``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b)?(?:/s)?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_rate(text: str) -> int:
    """Bytes per second; K, M, G and T count in powers of 1024, with or without ``iB`` and ``/s``; ``off`` and ``0`` are
    no limit, and give 0. Raises ValueError."""
    if text.strip().lower() == "off":
        return 0
    found = _FORM.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no rate: write it like 50MiB/s, 50M or off")
    rate = float(found[1]) * 1024 ** _POWERS[found[2].lower()]
    if 0 < rate < 1:
        raise ValueError(f"{text!r} is less than a byte per second")
    return int(rate)


def _read(value: Any) -> Any:
    return parse_rate(value) if isinstance(value, str) else value


Rate = Annotated[int, BeforeValidator(_read)]
"""A setting of bytes per second."""
