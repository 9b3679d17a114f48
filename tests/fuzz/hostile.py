"""Makes hostile messages out of the published contract, from a seed: the same seed makes the same messages.

Each is a sample of a real message that was spoiled in one way: cut, of another version, with fields that are missing,
strange, too many or too large, with ids that try to get out of their place, with an envelope that lies.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from schemas.json_schemas import message_types
from schemas.samples import SAMPLE_ID, sample_envelope

HOSTILE_TEXTS = (
    "",
    "../../../../etc/passwd",
    "*",
    ">",
    "a.b.c",
    "a b",
    ".",
    "..",
    "-",
    "\x00",
    "a\x00b",
    "\r\nPUB x 0\r\n",
    "\N{SNOWMAN}" * 3,
    "\ud800",
    "x" * 300,
    "$JS.API.STREAM.DELETE.EVENTS",
    "${ideas.uri}",
    "'; DROP TABLE ideas; --",
    "%s%n{0}{x}",
    "<script>",
    "-rf",
    "hub",
    "0" * 40,
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    -(10**400),
    1e308,
    -0.0,
    [],
    {},
    [[[]]],
    {"": ""},
    {"type": "x", "name": None},
)
HOSTILE_TIMES = ("", "yesterday", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00+99:99")
DEEP = 4000
LARGE = 70 * 1024


class Message(NamedTuple):
    """One hostile message: what was done to it, and its bytes."""

    what: str
    payload: bytes


Spoil = Callable[[dict[str, Any]], dict[str, Any] | bytes]


class Hostile:
    """The messages of one seed. It stands in their ids, so that several runs on one stack do not meet."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._seed = seed
        self._number = 0
        self._samples: dict[str, dict[str, Any]] = {}

    def text(self) -> str:
        """A text that something might choke on."""
        return self.random.choice(HOSTILE_TEXTS)

    def fresh_id(self) -> str:
        """An id that a caller may use."""
        self._number += 1
        return f"fuzz-{self._seed}-{self._number}"

    def good(self, kind: str, *, source: str) -> dict[str, Any]:
        """An honest sample of a message of this type."""
        if kind not in self._samples:
            self._samples[kind] = sample_envelope(message_types()[kind], type_name=kind, source=source)
        return {**self._samples[kind], "source": source, "id": self.fresh_id()}

    def one(self, kind: str, *, source: str) -> Message:
        """A sample of ``kind`` spoiled in one way, any."""
        return self._made(self.random.choice(self._ways()), self.good(kind, source=source))

    def spoiled(self, kind: str, *, source: str) -> Iterator[Message]:
        """A sample of ``kind`` spoiled in every way that there is, once."""
        for spoil in self._ways():
            yield self._made(spoil, self.good(kind, source=source))

    def _ways(self) -> tuple[Spoil, ...]:
        return (
            self._cut,
            self._not_utf8,
            self._nul,
            self._no_object,
            self._deep,
            self._other_type,
            self._other_version,
            self._no_version,
            self._envelope_field,
            self._envelope_field_missing,
            self._source,
            self._hostile_id,
            self._times,
            self._replyto,
            self._data_field,
            self._data_field,
            self._data_field_missing,
            self._data_field_more,
            self._data_text,
            self._data_large,
            self._data_list,
            self._twice,
        )

    def _made(self, spoil: Spoil, message: dict[str, Any]) -> Message:
        spoiled = spoil(copy.deepcopy(message))
        payload = spoiled if isinstance(spoiled, bytes) else json.dumps(spoiled).encode("utf-8", "surrogatepass")
        return Message(spoil.__name__.strip("_"), payload)

    # --- bytes

    def _cut(self, message: dict[str, Any]) -> bytes:
        whole = json.dumps(message).encode()
        return whole[: self.random.randrange(len(whole))]

    def _not_utf8(self, message: dict[str, Any]) -> bytes:
        whole = bytearray(json.dumps(message).encode())
        for _ in range(8):
            whole[self.random.randrange(len(whole))] = self.random.randrange(128, 256)
        return bytes(whole)

    def _nul(self, message: dict[str, Any]) -> bytes:
        whole = json.dumps(message).encode()
        at = self.random.randrange(len(whole))
        return whole[:at] + b"\x00" + whole[at:]

    def _no_object(self, _message: dict[str, Any]) -> bytes:
        return self.random.choice((b"", b"null", b"[]", b"1e999", b'"text"', b"true", b"{", b"\xff\xfe", b"NaN"))

    def _deep(self, message: dict[str, Any]) -> bytes:
        deep = b'{"a":' * DEEP + b"1" + b"}" * DEEP
        return json.dumps({**message, "data": "@"}).encode().replace(b'"@"', deep)

    def _twice(self, message: dict[str, Any]) -> bytes:
        """A member that stands there twice: which one counts differs from parser to parser."""
        whole = json.dumps(message)
        return (whole[:-1] + f', "source": {json.dumps(self.text())}' + "}").encode("utf-8", "surrogatepass")

    # --- the envelope

    def _other_type(self, message: dict[str, Any]) -> dict[str, Any]:
        types = sorted(message_types())
        return {**message, "type": self.random.choice((*types, "", "calque.event", self.text()))}

    def _other_version(self, message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "type": str(message["type"]).rpartition(".")[0] + self.random.choice((".v2", ".v0", ".v"))}

    def _no_version(self, message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "specversion": self.random.choice(("0.3", "2.0", "", None, 1.0))}

    def _envelope_field(self, message: dict[str, Any]) -> dict[str, Any]:
        return {**message, self.random.choice(sorted(message)): self.random.choice(HOSTILE_VALUES)}

    def _envelope_field_missing(self, message: dict[str, Any]) -> dict[str, Any]:
        message.pop(self.random.choice(sorted(message)))
        return message

    def _source(self, message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "source": self.random.choice(("hub", "admin", "south", self.text()))}

    def _hostile_id(self, message: dict[str, Any]) -> dict[str, Any]:
        ids = (self.text(), f"{SAMPLE_ID}/step/1", "x" * 5000, "a/b", "@", "~")
        return {**message, "id": self.random.choice(ids)}

    def _times(self, message: dict[str, Any]) -> dict[str, Any]:
        field = self.random.choice(("time", "expirytime"))
        return {**message, field: self.random.choice(HOSTILE_TIMES)}

    def _replyto(self, message: dict[str, Any]) -> dict[str, Any]:
        to = ("$JS.API.STREAM.DELETE.EVENTS", "_INBOX.>", "_INBOX.*", "calque.evt.hub.x.y.z", "_HUB.x", self.text())
        return {**message, "replyto": self.random.choice(to)}

    # --- the data

    def _data_field(self, message: dict[str, Any]) -> dict[str, Any]:
        place, key = self._place(message["data"])
        if key is not None:
            place[key] = self.random.choice(HOSTILE_VALUES)
        return message

    def _data_field_missing(self, message: dict[str, Any]) -> dict[str, Any]:
        place, key = self._place(message["data"])
        if key is not None and isinstance(place, dict):
            del place[key]
        return message

    def _data_field_more(self, message: dict[str, Any]) -> dict[str, Any]:
        if isinstance(message["data"], dict):
            message["data"][self.text()] = self.random.choice(HOSTILE_VALUES)
        return message

    def _data_text(self, message: dict[str, Any]) -> dict[str, Any]:
        """A text where a text belongs, but not this one."""
        for _ in range(20):
            place, key = self._place(message["data"])
            if key is not None and isinstance(place[key], str):
                place[key] = self.text()
                break
        return message

    def _data_large(self, message: dict[str, Any]) -> dict[str, Any]:
        place, key = self._place(message["data"])
        if key is not None:
            place[key] = "x" * LARGE
        return message

    def _data_list(self, message: dict[str, Any]) -> dict[str, Any]:
        return {**message, "data": self.random.choice(([], [message["data"]], "text", 1, None, [None] * 5000))}

    def _place(self, value: Any) -> tuple[Any, Any]:
        """Somewhere in ``value``: what holds it, and under which key."""
        holder, key = value, None
        found: list[tuple[Any, Any]] = []
        waiting = [value]
        while waiting:
            one = waiting.pop()
            keys = list(one) if isinstance(one, dict) else list(range(len(one))) if isinstance(one, list) else []
            found += [(one, each) for each in keys]
            waiting += [one[each] for each in keys]
        if found:
            holder, key = self.random.choice(found)
        return holder, key
