"""Transformers: from what a rule says and a column's type to a function of one value, or why that can't be."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from brokers.masking.arrays import each_element
from brokers.masking.dates import NoDate, Shift
from brokers.masking.fakes import DIFFERENT, LEAST_DIFFERENT, Fake
from brokers.masking.formats import KeepFormat
from brokers.masking.integers import Integers
from brokers.masking.jsons import each_leaf
from brokers.masking.keyed import KEY_BYTES, Keyed
from brokers.masking.types import ColumnType, Family, read_type
from schemas.masking_rules import Transformer

REDACTED: Final = "REDACTED"
HASH_CHARACTERS: Final = 32
LEAST_HASH: Final = 16
"""With fewer characters than that a hash may come twice."""

Change = Callable[[str, str | None], str | None]
"""A value, and what another column of its row says (for ``by``) -> what becomes of it; ``None`` is NULL."""

_REDACTED: Final[dict[Family, str]] = {
    "integer": "0",
    "number": "0",
    "uuid": str(uuid.UUID(int=0)),
    "boolean": "false",
    "date": "1970-01-01",
    "timestamp": "1970-01-01 00:00:00",
    "time": "00:00:00",
    "interval": "00:00:00",
    "bytes": "\\x",
    "inet": "0.0.0.0",  # noqa: S104 - a value, nothing listens
    "cidr": "0.0.0.0/32",
    "mac": "00:00:00:00:00:00",
}
_TEXT: Final = read_type("text")
_INTEGER: Final = read_type("bigint")
_NUMBER: Final = read_type("numeric")


class CannotMask(ValueError):
    """A transformer does not fit a type, or one value. The text says why and never shows the value."""


class Custom(NamedTuple):
    """A transformer that the operator of a broker has set up: ``change`` gets a value and a key of its own for the
    image. ``unique``: it makes different values of different ones."""

    change: Callable[[str, bytes], str]
    unique: bool = False


class Workshop:
    """Makes the functions of one image: those of the same transformer and type are one."""

    def __init__(self, key: Keyed, *, custom: Mapping[str, Custom]) -> None:
        self._key = key
        self._custom = custom
        self._made: dict[tuple[Transformer, ColumnType], Change] = {}

    @classmethod
    def trial(cls, custom: Mapping[str, Custom]) -> Workshop:
        """One whose functions are made to see whether they can be, and used on nothing that stays."""
        return cls(Keyed(secrets.token_bytes(KEY_BYTES)), custom=custom)

    def change(self, transformer: Transformer, type: ColumnType) -> Change:
        """The function for values of ``type``. Raises :class:`CannotMask` when there is none."""
        known = self._made.get((transformer, type))
        if known is None:
            known = self._made[(transformer, type)] = self._make(transformer, type)
        return known

    def _make(self, transformer: Transformer, type: ColumnType) -> Change:
        if transformer.kind == "keep":
            return lambda value, _: value
        if transformer.kind == "null":
            return lambda _value, _by: None
        if type.array:
            if transformer.kind == "redact":
                return lambda _value, _by: "{}"
            return each_element(self.change(transformer, type.element))
        if type.family == "json":
            return self.in_json({(): transformer})
        match transformer.kind:
            case "redact":
                return _redact(type)
            case "hash":
                return self._hash(type)
            case "keep format":
                return self._keep_format(type)
            case "fake":
                return self._fake(transformer, type)
            case "shift dates":
                return self._shift(transformer, type)
        return self._custom_change(transformer, type)

    def in_json(self, places: Mapping[tuple[str, ...], Transformer]) -> Change:
        """The function for JSON values: at each place its transformer, for all that lies below it but for what has
        another. The place ``()`` is the whole; without it, all else stays."""
        text = {place: self.change(each, _TEXT) for place, each in places.items()}
        numbers = {place: self._leaf(each, _NUMBER) for place, each in places.items()}
        integers = {place: self._leaf(each, _INTEGER) for place, each in places.items()}
        kept = {place for place, each in places.items() if each.kind == "keep"}
        return each_leaf(text, integers=integers, numbers=numbers, kept=kept)

    def _leaf(self, transformer: Transformer, type: ColumnType) -> Change:
        """For a number inside JSON: what does not fit numbers makes a 0 of it."""
        try:
            return self.change(transformer, type)
        except CannotMask:
            return _redact(type)

    def _hash(self, type: ColumnType) -> Change:
        key = self._key.sub(f"hash {type.family}")
        match type.family:
            case "text":
                return partial(_hashed, key, min(type.limit or HASH_CHARACTERS, HASH_CHARACTERS), type.name)
            case "integer":
                return _integers(Integers(key, keep_length=False))
            case "number":
                return partial(_digits, KeepFormat(key))
            case "uuid":
                return lambda value, _: str(uuid.UUID(bytes=key.digest(uuid.UUID(value).bytes), version=4))
            case "bytes":
                return lambda value, _: "\\x" + key.digest(value.encode()).hex()
            case "inet":
                return partial(_address, key)
            case "mac":
                return lambda value, _: "02" + "".join(f":{each:02x}" for each in key.digest(value.encode(), size=5))
        raise _unfit("hash", type)

    def _keep_format(self, type: ColumnType) -> Change:
        key = self._key.sub("keep format")
        if type.family == "text":
            keep = KeepFormat(key)
            return lambda value, _: keep(value)
        if type.family == "integer":
            return _integers(Integers(key, keep_length=True))
        if type.family == "number":
            return partial(_digits, KeepFormat(key))
        if type.family == "uuid":
            return self._hash(type)
        raise _unfit("keep format", type)

    def _fake(self, transformer: Transformer, type: ColumnType) -> Change:
        if type.family == "inet" and transformer.name == "ip":
            return partial(_address, self._key.sub("hash inet"))
        if type.family != "text":
            raise _unfit(str(transformer), type)
        fake = Fake(self._key.sub(str(transformer)), transformer.name, limit=type.limit)
        return lambda value, _: fake(_trimmed(value, type.name))

    def _shift(self, transformer: Transformer, type: ColumnType) -> Change:
        shift = Shift(self._key.sub("shift dates"), days=transformer.days)
        if type.family == "text":
            return partial(_shifted_text, shift, _redact(type))
        if type.family in ("date", "timestamp"):
            return partial(_shifted, shift)
        raise _unfit("shift dates", type)

    def _custom_change(self, transformer: Transformer, type: ColumnType) -> Change:
        custom = self._custom.get(transformer.name)
        if custom is None:
            known = ", ".join(self._custom) or "none"
            raise CannotMask(f"this broker has no custom transformer {transformer.name!r} (it has: {known})")
        return partial(_customised, custom.change, self._key.sub(str(transformer)).material, type)


def stays_different(transformer: Transformer, type: ColumnType, *, custom: Mapping[str, Custom]) -> bool:
    """Whether different values of ``type`` become different ones."""
    plain = not type.array and type.family != "json"
    match transformer.kind:
        case "keep" | "null":
            return True
        case "hash":
            if type.family == "text":
                return plain and (type.limit is None or type.limit >= LEAST_HASH)
            return plain and (type.family in ("integer", "uuid", "bytes") or type.fixed)
        case "keep format":
            if type.family == "text":
                return plain and type.name != "citext"
            return plain and (type.family in ("integer", "uuid") or type.fixed)
        case "fake":
            enough = type.limit is None or type.limit >= LEAST_DIFFERENT
            return plain and transformer.name in DIFFERENT and type.family == "text" and enough
        case "shift dates":
            return plain and not transformer.by and type.family in ("date", "timestamp")
        case "custom":
            return transformer.name in custom and custom[transformer.name].unique
    return False


def _unfit(what: str, type: ColumnType) -> CannotMask:
    return CannotMask(f"{what!r} can't be used for {type.name}")


def _redact(type: ColumnType) -> Change:
    if type.family == "text":
        return lambda _value, _by: REDACTED[: type.limit]
    if type.family not in _REDACTED:
        raise _unfit("redact", type)
    made = _REDACTED[type.family]
    return lambda _value, _by: made


def _trimmed(value: str, type: str) -> str:
    """Without the blanks that fill up a ``character(n)``: it stands for the same as the text without."""
    return value.rstrip(" ") if type in ("character", "bpchar") else value


def _hashed(key: Keyed, size: int, type: str, value: str, _by: str | None) -> str:
    text = _trimmed(value, type)
    if type == "citext":
        text = text.casefold()
    return key.digest(text.encode("utf-8", "surrogatepass")).hex()[:size]


def _integers(integers: Integers) -> Change:
    def change(value: str, _by: str | None) -> str:
        try:
            return str(integers(int(value)))
        except ValueError:
            raise CannotMask("a number is none of 64 bits") from None

    return change


def _digits(keep: KeepFormat, value: str, _by: str | None) -> str:
    if value in ("NaN", "Infinity", "-Infinity"):
        return value
    mantissa, e, exponent = value.partition("e")
    return keep.digits(mantissa) + e + exponent


def _address(key: Keyed, value: str, _by: str | None) -> str:
    address, slash, mask = value.partition("/")
    if ":" in address:
        drawn = key.digest(address.encode(), size=12).hex()
        return "2001:db8:" + ":".join(drawn[place : place + 4] for place in range(0, 24, 4)) + slash + mask
    return "10." + ".".join(str(each) for each in key.digest(address.encode(), size=3)) + slash + mask


def _shifted(shift: Shift, value: str, by: str | None) -> str:
    try:
        return shift(value, by)
    except NoDate:
        raise CannotMask("a date is not in ISO form") from None


def _shifted_text(shift: Shift, otherwise: Change, value: str, by: str | None) -> str | None:
    try:
        return shift(value, by)
    except NoDate:
        return otherwise(value, by)


def _customised(change: Callable[[str, bytes], str], key: bytes, type: ColumnType, value: str, _by: str | None) -> str:
    try:
        made = change(value, key)
    except Exception as error:  # it is the operator's code; what it says may hold the value
        raise CannotMask(f"the custom transformer raised {error.__class__.__name__}") from None
    if not isinstance(made, str):
        raise CannotMask(f"the custom transformer gave a {made.__class__.__name__}, not a text")
    return made if type.limit is None else made[: type.limit]
