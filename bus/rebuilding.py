"""``EVENTS`` made anew from what it is sourced from, so that no durable consumer on it skips anything.

What is to be done, and how far it is, is kept at the hub beside the snapshots (``calque.rebuild.state``): a hub that is
killed meanwhile goes on where it was, and of several hubs one does it. A consumer's place in the old stream is carried
over by what it stood for (:mod:`bus.places`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
import zlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

import msgspec

from bus.connection import Bus
from bus.jetstream import NO_MESSAGE, WRONG_LAST_SEQUENCE, JetStream, JetStreamError
from bus.pieces import PART_BYTES
from bus.places import Event, Place, Seeking
from bus.reader import StreamReader
from bus.snapshots import STREAM
from bus.streams import EVENTS, begin_inbox, begin_source, events_settings
from schemas import subjects
from schemas.base import Fact
from schemas.envelope import timestamp
from schemas.problems import CalqueError, conflict, temporary
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

STATE, PLACES = f"{subjects.REBUILD}.state", f"{subjects.REBUILD}.places"
LOOK_SECONDS = 0.5
STALE_SECONDS = 10.0
"""A state that nobody touched for so long, as seen by who waits, is taken over."""
QUIET_SECONDS = 20.0
"""How long to wait for an event more when there are fewer than before."""
PAUSED = timedelta(days=365)
PAGE = 1000

Phase = Literal["wanted", "placed", "done"]


class Rebuild(Fact, frozen=True, kw_only=True):
    """What is to be done, and how far it is. ``sites``: those whose ``IN_<site>`` is filled anew by the site, too.

    ``before`` and ``after`` count the events of ``EVENTS``, ``consumers`` says where each durable goes on.
    """

    id: str
    phase: Phase
    by: str
    at: str
    sites: tuple[str, ...] = ()
    run: str = ""
    beat: int = 0
    parts: int = 0
    created: str = ""
    config: dict[str, Any] = {}
    sources: list[dict[str, Any]] = []
    before: int = 0
    after: int = 0
    consumers: dict[str, int] = {}


class _Identified(msgspec.Struct):
    id: str = ""


class _Held(NamedTuple):
    rebuild: Rebuild
    sequence: int


class Rebuilding:
    """One hub's side of it. Every method raises :class:`CalqueError`."""

    def __init__(self, bus: Bus, *, run: str) -> None:
        self._bus = bus
        self._js = JetStream(bus)
        self._run = run

    async def state(self) -> Rebuild | None:
        """The last that was asked for, done or not."""
        held = await self._held()
        return held.rebuild if held else None

    async def request(self, *, id: str, by: str, sites: Sequence[str] = ()) -> Rebuild:
        """Ask for it: the next hub that starts does it. Raises ``conflict`` while another is under way."""
        held = await self._held()
        if held is not None and held.rebuild.phase != "done":
            if held.rebuild.id == id:
                return held.rebuild
            message = f"{EVENTS} is being rebuilt already, since {held.rebuild.at}"
            raise CalqueError(conflict("events", message, "wait until it has ended"))
        wanted = Rebuild(id=id, phase="wanted", by=by, sites=tuple(sites), at=timestamp(datetime.now(UTC)))
        await self._put(wanted, after=held.sequence if held else 0)
        return wanted

    async def finish(self) -> bool:
        """Do what was asked for, or wait until another hub has; whether there was anything."""
        seen, since, waited = -1, time.monotonic(), False
        while (held := await self._held()) is not None and held.rebuild.phase != "done":
            waited = True
            if held.sequence != seen:
                seen, since = held.sequence, time.monotonic()
            theirs = held.rebuild.run not in ("", self._run)
            if not theirs or time.monotonic() - since >= STALE_SECONDS:
                try:
                    mine = await self._change(held, run=self._run)
                except CalqueError as error:
                    if error.problem.code != "contended":
                        raise
                else:
                    await self._work(mine)
                    return True
            await asyncio.sleep(LOOK_SECONDS)
        return waited

    # --- the work

    async def _work(self, held: _Held) -> None:
        logger.warning("%s is made anew, as %s asked for", EVENTS, held.rebuild.by)
        if held.rebuild.phase == "wanted":
            held = await self._place(held)
        places = await self._load_places(held.rebuild.parts)
        info = await self._js.stream(EVENTS)
        if info is not None and info["created"] == held.rebuild.created:
            await self._js.call(f"STREAM.DELETE.{EVENTS}")
            info = None
        if info is None:
            for site in held.rebuild.sites:
                await self._from_site(site)
                held = await self._change(held)
            await self._js.call(f"STREAM.CREATE.{EVENTS}", {**held.rebuild.config, "sources": []})
        # Nobody shall make one of these consumers meanwhile, at some other place.
        for place in places:
            await self._reserve(place)
        await self._source(held.rebuild.sources)
        held = await self._filled(held)
        starts, last, held = await self._starts(places, held)
        for place, start in zip(places, starts, strict=True):
            await self._begin(place, start)
        consumers = {str(place.config["durable_name"]): start for place, start in zip(places, starts, strict=True)}
        await self._change(held, phase="done", after=last, consumers=consumers)
        await self._js.call(f"STREAM.PURGE.{STREAM}", {"filter": f"{PLACES}.>"})
        logger.warning("%s holds %d events now, %d before", EVENTS, last, held.rebuild.before)

    async def _place(self, held: _Held) -> _Held:
        """Write down where every durable consumer stands, and what ``EVENTS`` is like."""
        info = await self._js.stream(EVENTS)
        if info is None:
            settings = events_settings(self._js)
            return await self._change(held, phase="placed", config=settings, sources=settings.pop("sources"))
        config = dict(info["config"])
        sources = config.pop("sources", None) or []
        floors = [(_floor(consumer), _config(consumer)) for consumer in await self._consumers()]
        last: dict[str, str] = {}
        places: list[Place] = []
        left = sorted(floors, key=lambda each: each[0])
        async for event in self._events(up_to=max((floor for floor, _ in floors), default=0)):
            while left and left[0][0] < event.sequence:
                places.append(Place(config=left.pop(0)[1], last=dict(last)))
            last[event.writer] = event.id
        places += [Place(config=each, last=dict(last)) for _, each in left]
        packed = zlib.compress(msgspec.json.encode(places), 1)
        parts = [packed[at : at + PART_BYTES] for at in range(0, len(packed), PART_BYTES)]
        for number, part in enumerate(parts):
            await self._js.publish(f"{PLACES}.{number}", part, headers={})
        return await self._change(
            held,
            phase="placed",
            parts=len(parts),
            created=str(info["created"]),
            config=config,
            sources=sources,
            before=int(info["state"]["messages"]),
        )

    async def _from_site(self, site: str) -> None:
        """Let a site's outbox be sent again from its beginning. One that is away does it when it is back."""
        name = subjects.inbox(site)
        if await self._js.stream(name) is not None:
            await self._js.call(f"STREAM.DELETE.{name}")
        try:
            await begin_inbox(self._js, site)
        except CalqueError as error:
            logger.warning("site %s does not answer, its events come when it is back: %s", site, error)

    async def _reserve(self, place: Place) -> None:
        paused = timestamp(datetime.now(UTC) + PAUSED)
        name = place.config["durable_name"]
        try:
            await self._js.call(f"CONSUMER.INFO.{EVENTS}.{name}")
        except JetStreamError:
            config = {**place.config, "deliver_policy": "all", "pause_until": paused}
            await self._create(config)

    async def _begin(self, place: Place, start: int) -> None:
        name = place.config["durable_name"]
        await self._js.call(f"CONSUMER.DELETE.{EVENTS}.{name}")
        await self._create({**place.config, "deliver_policy": "by_start_sequence", "opt_start_seq": start})

    async def _create(self, config: Mapping[str, Any]) -> None:
        name = config["durable_name"]
        request = {"stream_name": EVENTS, "config": {**config, "name": name}, "action": "create"}
        await self._js.call(f"CONSUMER.CREATE.{EVENTS}.{name}", request)

    async def _source(self, wanted: Sequence[dict[str, Any]]) -> None:
        config = (await self._js.call(f"STREAM.INFO.{EVENTS}"))["config"]
        there: list[dict[str, Any]] = config.get("sources") or []
        names = {source["name"] for source in there}
        missing = [source for source in wanted if source["name"] not in names]
        for source in missing:
            await begin_source(self._js, source)
        if missing:
            # A stream without sources was given a duplicate window: with one, a site could suppress another's event.
            changed = {**config, "duplicate_window": 0, "sources": [*there, *missing]}
            await self._js.call(f"STREAM.UPDATE.{EVENTS}", changed)

    async def _filled(self, held: _Held) -> _Held:
        """Wait until as many events are there as before, or until no more come."""
        count, since = -1, time.monotonic()
        while True:
            now = await self._js.last_sequence(EVENTS)
            if now != count:
                count, since = now, time.monotonic()
            if count >= held.rebuild.before:
                return held
            if time.monotonic() - since >= QUIET_SECONDS:
                logger.error("%s has %d events, and had %d: no more come", EVENTS, count, held.rebuild.before)
                return held
            await asyncio.sleep(LOOK_SECONDS)
            held = await self._change(held)

    async def _starts(self, places: Sequence[Place], held: _Held) -> tuple[list[int], int, _Held]:
        """Where each consumer begins, and the last sequence that was looked at."""
        last = await self._js.last_sequence(EVENTS)
        seeking = Seeking(places)
        beat = time.monotonic()
        async for event in self._events(up_to=last):
            seeking.take(event)
            if time.monotonic() - beat > STALE_SECONDS / 4:
                beat = time.monotonic()
                held = await self._change(held)
        return seeking.starts(last), last, held

    # --- what lies there

    async def _events(self, *, up_to: int) -> AsyncGenerator[Event, None]:
        """Every event up to a sequence."""
        if not up_to:
            return
        decoder = msgspec.json.Decoder(_Identified)
        batches = StreamReader(self._bus, stream=EVENTS).read()
        try:
            async for batch in batches:
                for each in batch:
                    if each.sequence > up_to:
                        return
                    try:
                        id = decoder.decode(each.payload).id
                    except UNREADABLE:
                        id = ""
                    yield Event(each.sequence, each.subject, subjects.writer_of(each.subject), id)
                if batch and batch[-1].sequence >= up_to:
                    return
        finally:
            await batches.aclose()

    async def _consumers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = await self._js.call(f"CONSUMER.LIST.{EVENTS}", {"offset": len(found)})
            consumers: list[dict[str, Any]] = page.get("consumers") or []
            found += consumers
            if not consumers or len(found) >= int(page.get("total", 0)):
                return [each for each in found if each["config"].get("durable_name")]

    async def _load_places(self, parts: int) -> list[Place]:
        packed = b""
        for number in range(parts):
            message = await self._message(f"{PLACES}.{number}")
            if message is None:
                raise CalqueError(temporary("events_replaced", f"part {number} of the places on {EVENTS} is missing"))
            packed += message[1]
        return msgspec.json.decode(zlib.decompress(packed), type=list[Place]) if packed else []

    async def _held(self) -> _Held | None:
        message = await self._message(STATE)
        return None if message is None else _Held(msgspec.json.decode(message[1], type=Rebuild), message[0])

    async def _message(self, subject: str) -> tuple[int, bytes] | None:
        try:
            answer = await self._js.call(f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": subject})
        except JetStreamError as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message = answer["message"]
        return int(message["seq"]), base64.b64decode(message.get("data", ""))

    async def _change(self, held: _Held, **changes: Any) -> _Held:
        """Another state, which also says that somebody is at work. Raises ``contended`` when another hub has it."""
        changed = msgspec.structs.replace(held.rebuild, **{"beat": held.rebuild.beat + 1, **changes})
        return _Held(changed, await self._put(changed, after=held.sequence))

    async def _put(self, rebuild: Rebuild, *, after: int) -> int:
        try:
            headers = {"Nats-Expected-Last-Subject-Sequence": str(after)}
            return (await self._js.publish(STATE, msgspec.json.encode(rebuild), headers=headers)).seq
        except JetStreamError as error:
            if error.err_code == WRONG_LAST_SEQUENCE:
                raise CalqueError(temporary("contended", "another hub rebuilds the events")) from None
            raise


def _floor(consumer: Mapping[str, Any]) -> int:
    kept = "delivered" if consumer["config"].get("ack_policy") == "none" else "ack_floor"
    return int(consumer[kept]["stream_seq"])


def _config(consumer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, without the place and what the server notes for itself."""
    dropped = {"deliver_policy", "opt_start_seq", "opt_start_time", "pause_until", "num_replicas"}
    config = {key: value for key, value in consumer["config"].items() if key not in dropped}
    metadata = {key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats.")}
    return {**config, "metadata": metadata}
