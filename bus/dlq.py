"""Dead letters: messages that could not be handled, kept with the reason, for people to look at.

``DLQ`` stands at the hub and at each site, and holds what failed there. A letter's key is the digest of its subject and
its bytes, and the stream keeps one message per subject: what fails again is the same letter with the newer reason. The
payload is as it came; what is known about it stands in the headers, so that any NATS client can read a letter.

A full ``DLQ`` drops its oldest letters: nothing waits for room here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from bus.connection import Bus, Message
from bus.errors import timed_out
from bus.jetstream import NANOSECONDS, JetStream, JetStreamError
from schemas.envelope import Envelope, decode, timestamp
from schemas.letters import LetterFilter, LetterView
from schemas.problems import CalqueError, temporary
from schemas.subjects import DEAD_LETTERS, SubjectError, dead_letter, dead_letter_with, parse_dead_letter

STREAM = "DLQ"
MAX_REASON = 500
MAX_SUBJECT = 500
MOST_KEPT = 256 * 1024
"""Of a bigger message, only this many bytes are kept. No stream takes one that big, unless somebody changed it."""
KEY_DIGITS = 16
LETTERS_BYTES = 64 << 20
LETTERS_DAYS = 90
SETTINGS: Mapping[str, object] = {
    "name": STREAM,
    "subjects": [DEAD_LETTERS],
    "max_bytes": LETTERS_BYTES,
    "max_age": LETTERS_DAYS * 24 * 3600 * NANOSECONDS,
    "max_msgs_per_subject": 1,
    "discard": "old",
    "allow_direct": True,
}
TIMES_HEADER = "Calque-Times"
FIRST_HEADER = "Calque-First"
_BATCH = 256
_GAP_SECONDS = 5.0
_GONE = (10037, 10043, 10057)


class Unhandled(NamedTuple):
    """A message that could not be handled: where it came from, and why. ``headers`` are those that it came with."""

    stream: str
    consumer: str
    sequence: int
    subject: str
    payload: bytes
    code: str
    reason: str
    delivered: int = 1
    headers: Mapping[str, str] | None = None


class Letter(NamedTuple):
    """A letter as it lies. ``at`` is its sequence in ``DLQ``."""

    view: LetterView
    key: str
    payload: bytes
    at: int


class DeadLetters:
    """The dead letters of one place: a site, or ``hub``."""

    def __init__(self, bus: Bus, *, place: str) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._place = place

    async def bury(self, failure: Unhandled, *, again: bool = False) -> None:
        """Keep a message. A repeated delivery changes nothing, unless it was tried ``again``; the same message sent
        again is the same letter, and counted.

        Raises :class:`CalqueError` when it could not be stored.
        """
        key = hashlib.sha256(failure.subject.encode() + b"\0" + failure.payload).hexdigest()[:KEY_DIGITS]
        before = await self.get(key)
        now = timestamp(datetime.now(UTC))
        times, first = _history(failure.headers or {})
        if before is not None:
            where = (before.view.stream, before.view.consumer, before.view.sequence)
            if where == failure[:3] and not again:
                return
            times, first = before.view.times, before.view.first_at
        payload = failure.payload[:MOST_KEPT]
        await self._js.publish(
            dead_letter(place=self._place, stream=failure.stream, consumer=failure.consumer, key=key),
            payload,
            headers={
                "Calque-Reason": _written(" ".join(failure.reason.split())[:MAX_REASON]),
                "Calque-Code": _written(failure.code),
                "Calque-Subject": _written(failure.subject),
                "Calque-Sequence": str(failure.sequence),
                "Calque-Delivered": str(failure.delivered),
                "Calque-Size": str(len(failure.payload)),
                "Calque-At": now,
                FIRST_HEADER: first or now,
                TIMES_HEADER: str(times + 1),
            },
        )
        if before is not None and (before.view.stream, before.view.consumer) != failure[:2]:
            await self.remove(before)  # it failed in another place now: the subject differs

    async def get(self, key: str) -> Letter | None:
        """The letter with this key. Raises :class:`CalqueError` (temporary)."""
        try:
            subject = dead_letter_with(key)
        except SubjectError:
            return None
        found = [each async for each in self._read(subject)]
        return found[-1] if found else None

    async def list(self, wanted: LetterFilter) -> tuple[list[Letter], int]:
        """Those that the filter lets through, oldest first, and how many more there are than its limit."""
        found: list[Letter] = []
        more = 0
        async with aclosing(self._read(DEAD_LETTERS)) as letters:
            async for letter in letters:
                if not lets_through(wanted, letter.view):
                    continue
                if len(found) < wanted.limit:
                    found.append(letter)
                else:
                    more += 1
        return found, more

    async def remove(self, letter: Letter) -> None:
        """Take a letter away; a newer one of the same message stays. Gone is done."""
        try:
            await self._js.call(f"STREAM.MSG.DELETE.{STREAM}", {"seq": letter.at})
        except JetStreamError as error:
            if error.err_code not in _GONE:
                raise

    async def _read(self, subject: str) -> AsyncGenerator[Letter, None]:
        """Letters by direct gets: as many replies as there are letters, then ``204``."""
        get = f"{self._js.prefix}.DIRECT.GET.{STREAM}"
        after = 0
        while True:
            request = msgspec.json.encode({"seq": after + 1, "batch": _BATCH, "next_by_subj": subject})
            await self._bus.wait_connected(_GAP_SECONDS, subject=get)
            ended, more, came = False, False, after
            async with aclosing(self._bus.replies(get, request, gap_seconds=_GAP_SECONDS)) as replies:
                async for message in replies:
                    headers = message.headers or {}
                    if "Nats-Sequence" in headers:
                        after = int(headers["Nats-Sequence"])
                        if (letter := _letter(message)) is not None:
                            yield letter
                        continue
                    if message.status not in ("404", "204"):
                        raise CalqueError(temporary("jetstream", f"{get}: {message.status} {dict(headers)}"))
                    ended, more = True, int(headers.get("Nats-Num-Pending", "0")) > 0
                    break
            if ended and not more:
                return
            if not ended and came == after:
                raise timed_out(get, seconds=_GAP_SECONDS)


def lets_through(wanted: LetterFilter, view: LetterView) -> bool:
    """Whether all holds that the filter asks for."""
    return (
        wanted.stream in (None, view.stream) and wanted.type in (None, view.type) and wanted.code in (None, view.code)
    )


def envelope_in(payload: bytes) -> Envelope | None:
    """The envelope in a payload, if it is one."""
    try:
        return decode(payload)
    except CalqueError:
        return None


def _history(headers: Mapping[str, str]) -> tuple[int, str]:
    """How often this message was a letter before, and since when, as its sending again says."""
    times = headers.get(TIMES_HEADER, "")
    return (int(times) if times.isdecimal() and len(times) < 6 else 0), headers.get(FIRST_HEADER, "")[:40]


def _letter(message: Message) -> Letter | None:
    headers = message.headers or {}
    try:
        parts = parse_dead_letter(headers["Nats-Subject"])
    except SubjectError:
        return None  # laid there by somebody else
    envelope = envelope_in(message.payload)
    size = _number(headers.get("Calque-Size"), len(message.payload))
    at = headers.get("Calque-At", "")
    view = LetterView(
        id=f"{parts.place}-{parts.key}",
        site=parts.place,
        stream=parts.stream,
        consumer=parts.consumer,
        sequence=_number(headers.get("Calque-Sequence"), 0),
        subject=_read_back(headers.get("Calque-Subject", "")),
        code=_read_back(headers.get("Calque-Code", "")),
        reason=_read_back(headers.get("Calque-Reason", "")),
        first_at=headers.get(FIRST_HEADER, at),
        at=at,
        size=size,
        type=envelope.type[:200] if envelope else "",
        message=envelope.id[:200] if envelope else "",
        times=_number(headers.get(TIMES_HEADER), 1),
        delivered=_number(headers.get("Calque-Delivered"), 1),
        cut=size > len(message.payload),
    )
    return Letter(view, parts.key, message.payload, int(headers["Nats-Sequence"]))


def _number(text: str | None, otherwise: int) -> int:
    return int(text) if text is not None and text.isdecimal() and len(text) < 19 else otherwise


def _written(text: str) -> str:
    """Any text as it may stand in a header: one line of ASCII, escaped as in JSON."""
    return json.dumps(text[:MAX_SUBJECT])[1:-1]


def _read_back(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return text
