"""Array values as PostgreSQL writes them (``{1,NULL,"a \\"b\\""}``), each element changed by itself."""

from __future__ import annotations

import re
from collections.abc import Callable

Change = Callable[[str, "str | None"], "str | None"]

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{},])|([^{},"]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SPECIAL = re.compile(r'(["\\])')


def each_element(change: Change) -> Change:
    """``change`` for each element that is not NULL; dimensions and bounds stay."""

    def changed(value: str, by: str | None) -> str:
        bounds, equals, body = value.partition("=") if value.startswith("[") else ("", "", value)
        made: list[str] = []
        for quoted, mark, plain in _TOKEN.findall(body):
            if mark:
                made.append(mark)
            elif plain == "NULL":
                made.append(plain)
            else:
                element = change(plain or _ESCAPED.sub(r"\1", quoted), by)
                made.append("NULL" if element is None else '"' + _SPECIAL.sub(r"\\\1", element) + '"')
        return bounds + equals + "".join(made)

    return changed
