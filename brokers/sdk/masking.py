"""Taking secret values out of text that people read."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from schemas.secrets import Secret

MASK = "***"
_SHORTEST = 4  # a shorter one would blot out ordinary words


class Mask:
    """Masks the given values, and the passwords in those of them that are URLs."""

    def __init__(self, values: Iterable[Secret]) -> None:
        found: set[str] = set()
        for secret in values:
            found.add(secret.value)
            try:
                password = urlsplit(secret.value).password or ""
            except ValueError:  # no URL
                password = ""
            found |= {password, unquote(password)}
        # the longest first, so that a password inside a URL does not break up the URL
        self._hidden = sorted((text for text in found if len(text) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """``text`` without the secrets."""
        for hidden in self._hidden:
            text = text.replace(hidden, MASK)
        return text
