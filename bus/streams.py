"""The streams of the hub and of a site, and what joins them. Every step is safe to repeat; hub and site in any order.

    site    EVT_<site> --durable `hub`--> hub: IN_<site> --filtered to calque.evt.<site>.>--> EVENTS <-- EVT_hub

A site's outbox may hold anything, also events forged for others: those stay in ``IN_<site>``. ``IN_*`` and ``EVENTS``
have no duplicate window: with one, a site could suppress another's event by using its id.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from bus.connection import Bus
from bus.dlq import SETTINGS as DEAD_LETTERS
from bus.errors import unavailable
from bus.jetstream import CONSUMER_NOT_FOUND, NANOSECONDS, JetStream, JetStreamError
from bus.logs import RateLimitedLog
from schemas import subjects
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)

EVENTS = "EVENTS"
COMMANDS = "CMD"
JOBS = "JOBS"
ADVISORIES = "ADV"
OUTBOX_CONSUMER = "hub"
"""The durable consumer of a site's outbox from which the hub sources."""
EVENTS_CONSUMER = "events"
"""The durable consumer of ``IN_<site>`` and ``EVT_hub`` from which ``EVENTS`` sources: it delivers at once when a
server of a cluster has died, where an ordinary source looks for its consumer again after more than 10 s."""
JOBS_CONSUMER = "jobs"
SAGAS_CONSUMER = "sagas"
"""The durable consumer on ``EVENTS`` that all hubs share."""

LETTERS_CONSUMER = "letters"
"""The durable consumer on ``ADV``: what a server has given up delivering becomes a dead letter (``bus.advisories``)."""

DAY = 24 * 3600 * NANOSECONDS
MIB = 1 << 20
MESSAGE_BYTES = 128 * 1024
"""What a stream takes: twice what a message of ours may have, for headers and for versions to come."""
OUTBOX_BYTES = 512 * MIB
EVENTS_BYTES = 2048 * MIB
"""The server reserves what a stream may grow to: with 10 GiB of storage, a hub has room for 13 sites."""
ACK_WAIT_SECONDS = 3
"""What a process that was killed had in its hands is delivered to another one after this time. Who works on something
for longer says so meanwhile (``bus.work``)."""
FIRST_BACKOFF_SECONDS = 0.25
FIRST_PATIENCE_SECONDS = 0.5
"""A site that is not there yet does not answer: ask soon again at first, and wait longer later."""
LAST_BACKOFF_SECONDS = 5.0
SOURCE_STAYS_SECONDS = 0.5

_joins: weakref.WeakKeyDictionary[Bus, _Joining] = weakref.WeakKeyDictionary()


async def set_up_hub(bus: Bus, *, sites: Sequence[str] = (), heard: Sequence[str] = ()) -> None:
    """The hub's own streams and consumers, and each site's durable on ``CMD``. Needs no site: see :func:`add_site`."""
    js = JetStream(bus)
    await keep_stream(js, _outbox("hub"))
    if js.bus.settings.replicas > 1:
        await _deliver_to_events(js, subjects.HUB)
    await keep_stream(js, events_settings(js))
    await keep_stream(
        js,
        {
            "name": COMMANDS,
            "subjects": [subjects.COMMANDS_TO_SITES],
            "discard": "new",  # a site that is away finds every command that was taken for it
            "max_age": 8 * DAY,
            "max_bytes": 256 * MIB,
            "max_msg_size": MESSAGE_BYTES,
        },
    )
    await keep_stream(js, _jobs(subjects.COMMANDS_TO_HUB))
    await _consumer(js, JOBS, {"durable_name": JOBS_CONSUMER})
    of = {"filter_subjects": sorted(heard)} if heard else {}
    await _consumer(js, EVENTS, {"durable_name": SAGAS_CONSUMER, "max_ack_pending": 1000, **of})
    await keep_stream(js, DEAD_LETTERS)
    await _advised(js)
    for site in sites:
        await _site_commands(js, site)


async def set_up_site(bus: Bus, *, site: str) -> None:
    """The site's outbox with the consumer that the hub sources from, its local jobs and dead letters."""
    js = JetStream(bus)
    await keep_stream(js, _outbox(site))
    await _delivered(js, subjects.outbox(site), OUTBOX_CONSUMER, to=subjects.outbox_delivery(site))
    await keep_stream(js, _jobs(subjects.site_commands(site)))
    await _consumer(js, JOBS, {"durable_name": JOBS_CONSUMER})
    await keep_stream(js, DEAD_LETTERS)
    await _advised(js)


async def add_site(bus: Bus, site: str, *, deadline_seconds: float | None = None) -> None:
    """Have the hub source a site's events; waits until the site is there, for ever without a deadline.

    Raises :class:`CalqueError` ``unavailable`` when the site's outbox is not there at the deadline.
    """
    js = JetStream(bus)
    log = RateLimitedLog(logger, period_seconds=60.0)
    loop = asyncio.get_running_loop()
    deadline = None if deadline_seconds is None else loop.time() + deadline_seconds
    backoff = FIRST_BACKOFF_SECONDS
    patience = FIRST_PATIENCE_SECONDS
    while True:
        try:
            await _site_commands(js, site)
            if await js.stream(subjects.inbox(site)) is None:
                await begin_inbox(js, site, timeout_seconds=patience)
            await _joining(bus).add(js, site)
        except CalqueError as error:
            if deadline is not None and loop.time() >= deadline:
                raise unavailable(f"the outbox of site {site}", str(error)) from error
            log.warning(site, f"site {site} can't be joined yet: {error}")
        else:
            return
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, LAST_BACKOFF_SECONDS)
        patience = min(patience * 2, LAST_BACKOFF_SECONDS)


async def begin_inbox(js: JetStream, site: str, *, timeout_seconds: float = LAST_BACKOFF_SECONDS) -> None:
    """Make ``IN_<site>``, which is not there, and have the site's outbox sent to it from its beginning.

    Raises :class:`CalqueError` when the site does not answer.
    """
    await _outbox_reached(js, site, timeout_seconds=timeout_seconds)
    await keep_stream(js, _inbox(site))


async def begin_source(js: JetStream, source: Mapping[str, Any]) -> None:
    """Have a source of ``EVENTS``, which is empty, delivered from its beginning: its consumer remembers what it has
    delivered. A stream that is not there yet begins by itself, see :func:`add_site`."""
    stream = str(source["name"])
    if source.get("consumer") is None or await js.stream(stream) is None:
        return
    await _deliver_to_events(js, stream.partition("_")[2])
    await js.call(f"CONSUMER.RESET.{stream}.{EVENTS_CONSUMER}", {"seq": 1})


# --- what the streams are


def _outbox(writer: str) -> dict[str, Any]:
    """Refuses when full, rather than lose; appends are guarded and may be atomic batches."""
    return {
        "name": subjects.outbox(writer),
        "subjects": [subjects.events_of(writer)],
        "discard": "new",
        "max_bytes": OUTBOX_BYTES,
        "max_msg_size": MESSAGE_BYTES,
        "allow_direct": True,
        "allow_atomic": True,
    }


def _inbox(site: str) -> dict[str, Any]:
    outbox = subjects.outbox(site)
    source = {
        "name": outbox,
        "external": {"api": f"$JS.{site}.API", "deliver": ""},
        "consumer": {"name": OUTBOX_CONSUMER, "deliver_subject": subjects.outbox_delivery(site)},
    }
    return {"name": subjects.inbox(site), "sources": [source], "max_bytes": OUTBOX_BYTES, **_SOURCED}


def events_settings(js: JetStream) -> dict[str, Any]:
    """Those of ``EVENTS``, sourced from the hub's own outbox; sites are added by :func:`add_site`."""
    return {
        "name": EVENTS,
        "sources": [_source_of_events(js, subjects.HUB)],
        "allow_direct": True,
        "max_bytes": EVENTS_BYTES,
        **_SOURCED,
    }


_SOURCED: Mapping[str, Any] = {"discard": "new", "duplicate_window": 0}


def _jobs(subject: str) -> dict[str, Any]:
    return {
        "name": JOBS,
        "subjects": [subject],
        "retention": "workqueue",
        "discard": "new",
        "max_bytes": 128 * MIB,
        "max_age": 8 * DAY,
        "max_msg_size": MESSAGE_BYTES,
    }


async def _advised(js: JetStream) -> None:
    await keep_stream(js, _advisories())
    await _consumer(js, ADVISORIES, {"durable_name": LETTERS_CONSUMER})


def _advisories() -> dict[str, Any]:
    return {
        "name": ADVISORIES,
        "subjects": [
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ],
        "max_bytes": 32 * MIB,
        "max_age": 30 * DAY,
    }


def _source_of_events(js: JetStream, writer: str) -> dict[str, Any]:
    """What is not the writer's own does not pass: by a filter, which with a durable source is that of the consumer.

    On a single server, ordinary: nobody else would take over, and it is quicker to be there again after a crash.
    """
    stream = subjects.outbox(writer) if writer == subjects.HUB else subjects.inbox(writer)
    if js.bus.settings.replicas == 1:
        return (
            {"name": stream}
            if writer == subjects.HUB
            else {"name": stream, "filter_subject": subjects.events_of(writer)}
        )
    return {"name": stream, "consumer": {"name": EVENTS_CONSUMER, "deliver_subject": _to_events(writer)}}


def _to_events(writer: str) -> str:
    return f"dlv.events.{writer}"


# --- making them


async def keep_stream(js: JetStream, wanted: Mapping[str, Any]) -> None:
    """Make a stream, or bring an existing one to these settings; its sources are left to :func:`_add_source`."""
    name = wanted["name"]
    if js.bus.settings.replicas > 1:
        wanted = {**wanted, "num_replicas": js.bus.settings.replicas}
    info = await js.stream(name)
    if info is None:
        defaults = {"storage": "file", "retention": "limits", "num_replicas": 1}
        await js.call(f"STREAM.CREATE.{name}", {**defaults, **wanted})
        logger.info("made stream %s", name)
        return
    # Whatever else an operator chose stays; so does the number of replicas, unless the settings ask for several.
    config = info["config"]
    changed = {key: value for key, value in wanted.items() if key != "sources" and config.get(key, 0) != value}
    if not 0 < config.get("max_bytes", 0) <= wanted.get("max_bytes", 0):
        changed.pop("max_bytes", None)  # somebody gave it more room
    if changed:
        await js.call(f"STREAM.UPDATE.{name}", {**info["config"], **changed})
        logger.info("changed %s of stream %s", ", ".join(changed), name)


async def _consumer(js: JetStream, stream: str, wanted: Mapping[str, Any]) -> None:
    """Make a durable pull consumer, or bring an existing one to what is wanted.

    Tries without end: who handles counts (``bus.work``).
    """
    name = wanted["durable_name"]
    wanted = {**wanted, "ack_wait": ACK_WAIT_SECONDS * NANOSECONDS}
    config: dict[str, Any]
    try:
        config = (await js.call(f"CONSUMER.INFO.{stream}.{name}"))["config"]
        if all(config.get(key) == value for key, value in wanted.items()):
            return
        config.update(wanted)
    except JetStreamError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        config = {"ack_policy": "explicit", "deliver_policy": "all", "max_deliver": -1, **wanted}
    await js.call(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})
    logger.info("keeping consumer %s on stream %s", name, stream)


async def _delivered(js: JetStream, stream: str, name: str, *, to: str, filter_subject: str | None = None) -> None:
    """Make a durable consumer from which another stream sources (NATS ADR-60), unless it is there."""
    try:
        await js.call(f"CONSUMER.INFO.{stream}.{name}")
    except JetStreamError as error:
        if error.err_code != CONSUMER_NOT_FOUND:
            raise
        config = {
            "durable_name": name,
            "deliver_subject": to,
            "deliver_policy": "all",
            "ack_policy": "flow_control",
            "flow_control": True,
            "idle_heartbeat": NANOSECONDS,
            "max_deliver": -1,
            "max_ack_pending": 20000,
            **({"filter_subject": filter_subject} if filter_subject is not None else {}),
        }
        await js.call(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": config})


async def _deliver_to_events(js: JetStream, writer: str) -> None:
    stream = subjects.outbox(writer) if writer == subjects.HUB else subjects.inbox(writer)
    own = subjects.events_of(writer)
    await _delivered(js, stream, EVENTS_CONSUMER, to=_to_events(writer), filter_subject=own)


async def _site_commands(js: JetStream, site: str) -> None:
    await _consumer(js, COMMANDS, {"durable_name": site, "filter_subject": subjects.site_commands(site)})


async def _outbox_reached(js: JetStream, site: str, *, timeout_seconds: float) -> None:
    """Raise unless the site's outbox has its consumer for the hub.

    The hub may ask nothing about it but to start again, so that is what is asked, from the beginning: ``IN_<site>`` is
    empty then, also when it was deleted and is to be filled anew.
    """
    reset = JetStream(js.bus, prefix=f"$JS.{site}.API")
    operation = f"CONSUMER.RESET.{subjects.outbox(site)}.{OUTBOX_CONSUMER}"
    await reset.call(operation, {"seq": 1}, timeout_seconds=timeout_seconds)


class _Joining:
    """Extends the sources of ``EVENTS``; those that it has stay. What several sites wait for is done at once: a
    stream of a thousand sources is long to tell and to change.

    The server has no guarded update of a stream, so two that extend it at once could lose one of the sources: within
    a process they take turns, and each looks again whether its source has stayed.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting: set[str] = set()
        self._found: dict[str, bool | CalqueError] = {}

    async def add(self, js: JetStream, site: str) -> None:
        """Return when the source is there and has stayed. Raises :class:`CalqueError`."""
        while True:
            if await self._there(js, site):
                return
            await asyncio.sleep(SOURCE_STAYS_SECONDS)

    async def _there(self, js: JetStream, site: str) -> bool:
        self._waiting.add(site)
        try:
            async with self._turn:
                if site not in self._found:
                    await self._extend(js, sorted(self._waiting | {site}))
                found = self._found[site]
        finally:
            self._waiting.discard(site)
            self._found.pop(site, None)
        if isinstance(found, CalqueError):
            raise found
        return found

    async def _extend(self, js: JetStream, sites: Sequence[str]) -> None:
        """One look and one change for all; says in ``_found`` which sources were there."""
        info = await js.stream(EVENTS)
        if info is None:
            await keep_stream(js, events_settings(js))
            info = await js.call(f"STREAM.INFO.{EVENTS}")
        sources: list[dict[str, Any]] = info["config"].get("sources") or []
        known = {each["name"]: each for each in sources}
        found: dict[str, bool | CalqueError] = {}
        new: dict[str, dict[str, Any]] = {}
        for site in sites:
            name = subjects.inbox(site)
            source = known.get(name) or _source_of_events(js, site)
            try:
                if source.get("consumer"):
                    await _deliver_to_events(js, site)
            except CalqueError as error:
                found[site] = error
                continue
            found[site] = name in known
            if name not in known:
                new[name] = source
        if new:
            await js.call(f"STREAM.UPDATE.{EVENTS}", {**info["config"], "sources": [*sources, *new.values()]})
            for name in new:
                logger.info("stream %s sources from %s", EVENTS, name)
        self._found.update(found)
        self._waiting.difference_update(found)


def _joining(bus: Bus) -> _Joining:
    return _joins.setdefault(bus, _Joining())
