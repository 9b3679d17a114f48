"""Made-up names, addresses and the like: each follows from a keyed digest of what it stands for."""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable
from typing import Final, TypeVar

from brokers.masking import words
from brokers.masking.keyed import Keyed

T = TypeVar("T")
TOKEN_BYTES: Final = 10
DIFFERENT: Final = frozenset({"email", "username", "url"})
"""Kinds that carry a token of 80 bits: different values stay different."""
LEAST_DIFFERENT: Final = 34
"""With fewer characters than that the token would be cut."""


class _Draw:
    """Choices that follow from one digest, one after another."""

    def __init__(self, seed: bytes) -> None:
        self._left = int.from_bytes(seed)
        self._seed = seed

    def number(self, below: int) -> int:
        self._left, drawn = divmod(self._left, below)
        return drawn

    def one(self, among: tuple[T, ...]) -> T:
        return among[self.number(len(among))]

    def digits(self, count: int) -> str:
        return str(self.number(10**count)).zfill(count)

    def token(self) -> str:
        return b32encode(self._seed[:TOKEN_BYTES]).decode().lower()


def _first(draw: _Draw) -> str:
    return draw.one(words.FIRST_NAMES)


def _last(draw: _Draw) -> str:
    return draw.one(words.LAST_NAMES)


def _name(draw: _Draw) -> str:
    return f"{_first(draw)} {_last(draw)}"


def _street(draw: _Draw) -> str:
    return f"{1 + draw.number(240)} {draw.one(words.STREETS)} {draw.one(words.WAYS)}"


def _city(draw: _Draw) -> str:
    return draw.one(words.CITIES)


def _postcode(draw: _Draw) -> str:
    return draw.digits(5)


def _address(draw: _Draw) -> str:
    return f"{_street(draw)}, {_postcode(draw)} {_city(draw)}"


def _phone(draw: _Draw) -> str:
    return f"+999 {draw.digits(3)} {draw.digits(3)} {draw.digits(4)}"  # +999 is nobody's


def _company(draw: _Draw) -> str:
    return f"{_last(draw)} {draw.one(words.TRADES)} {draw.one(words.FORMS)}"


def _email(draw: _Draw) -> str:
    return f"{_first(draw).lower()}.{draw.token()}@{draw.one(words.DOMAINS)}"


def _username(draw: _Draw) -> str:
    return f"{_first(draw).lower()}_{draw.token()}"


def _url(draw: _Draw) -> str:
    return f"https://{draw.one(words.DOMAINS)}/{draw.token()}"


def _ip(draw: _Draw) -> str:
    return f"{draw.one(('192.0.2', '198.51.100', '203.0.113'))}.{1 + draw.number(254)}"


def _text(draw: _Draw) -> str:
    said = [draw.one(words.SENTENCE) for _ in range(5 + draw.number(8))]
    return " ".join(said).capitalize() + "."


def _country(draw: _Draw) -> str:
    return draw.one(words.COUNTRIES)


KINDS: Final[dict[str, Callable[[_Draw], str]]] = {
    "name": _name,
    "first name": _first,
    "last name": _last,
    "email": _email,
    "username": _username,
    "phone": _phone,
    "address": _address,
    "street": _street,
    "city": _city,
    "postcode": _postcode,
    "country": _country,
    "company": _company,
    "url": _url,
    "ip": _ip,
    "text": _text,
}


class Fake:
    """Made-up values of one kind."""

    def __init__(self, key: Keyed, kind: str, *, limit: int | None) -> None:
        self._key = key
        self._make = KINDS[kind]
        self._kind = kind
        self._limit = limit

    def __call__(self, text: str) -> str:
        """What stands for ``text``, in at most ``limit`` characters."""
        draw = _Draw(self._key.digest(text.encode("utf-8", "surrogatepass"), size=32))
        made = self._make(draw)
        if self._limit is None or len(made) <= self._limit:
            return made
        if self._kind in DIFFERENT:  # the token is what must stay
            _, at, domain = made.partition("@")
            kept = f"{draw.token()}{at}{domain}" if at else draw.token()
            return kept if len(kept) <= self._limit else draw.token()[: self._limit]
        return made[: self._limit].rstrip() or made[: self._limit]
