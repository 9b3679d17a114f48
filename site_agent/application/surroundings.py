"""What the agent watches: which brokers are there, and how the app services are. It records changes as events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from bus.connection import Bus
from bus.discovery import ServiceInfo, discover
from schemas import brokers as wire
from schemas import events as ev
from schemas.problems import CalqueError
from schemas.values import BrokerKind
from site_agent.adapters.brokers import Brokers, away
from site_agent.adapters.journal import Journal
from site_agent.domain import health
from site_agent.domain.site import Draft, Site

logger = logging.getLogger(__name__)

DISCOVERY_SECONDS = 2.0
FIRST_DISCOVERY_SECONDS = 0.2
FIRST_DISCOVERIES = 40
HEALTH_SECONDS = 1.0
ANSWER_SECONDS = 2.0
MISSES_UNTIL_LOST = 5
AWAY_UNTIL_LOST_SECONDS = 9.0
"""A broker that is started again is back before: it is never lost, and what needs it meanwhile waits."""
SILENT_UNTIL_LOST_SECONDS = 60.0
"""One that is there and says nothing is given more: it may be busy, or stand still with its machine."""
PROBES_UNTIL_BELIEVED = 2


async def for_ever(
    what: Callable[[], Awaitable[None]],
    *,
    every_seconds: float,
    at_first_seconds: float | None = None,
    first_rounds: int = 0,
) -> None:
    """Do ``what`` again and again; what goes wrong is logged and tried again.

    The first rounds come faster when ``at_first_seconds`` is given: at a start much changes.
    """
    done = 0
    while True:
        try:
            await what()
        except CalqueError as error:
            logger.warning("%s", error)
        except Exception:
            logger.exception("%s failed", getattr(what, "__qualname__", "a watch"))
        done += 1
        await asyncio.sleep(at_first_seconds if at_first_seconds and done < first_rounds else every_seconds)


class BrokerWatch:
    """Records ``broker.registered`` and ``broker.lost`` from discovery."""

    def __init__(self, journal: Journal, bus: Bus, brokers: Brokers) -> None:
        self._journal = journal
        self._bus = bus
        self._brokers = brokers
        self._missed: dict[str, tuple[int, float]] = {}
        self.crb_fingerprints: dict[str, str] = {}

    async def look(self) -> None:
        """One round: ask who is there, and record what changed."""
        loop = asyncio.get_running_loop()
        found: dict[str, ev.BrokerRegistered] = {}
        seen: set[str] = set()
        for info in await discover(self._bus, wait_seconds=0.3):
            key = _key(info)
            if key is None or info.metadata.get("calque.site") != self._journal.site.name:
                continue
            seen.add("-".join(key))
            try:
                found["-".join(key)] = await self._describe(*key)
            except CalqueError as error:
                logger.info("broker %s does not describe itself: %s", "-".join(key), error)
        lost: list[str] = []
        for id, known in list(self._journal.site.brokers.items()):
            bearable = None if id in seen else await self._bearable(known.kind, known.name)
            if bearable is None:
                self._missed.pop(id, None)
                continue
            times, since = self._missed.get(id, (0, loop.time()))
            self._missed[id] = (times + 1, since)
            if times + 1 >= MISSES_UNTIL_LOST and loop.time() - since >= bearable:
                lost.append(id)
        await self._journal.record(lambda site: _changes(site, found, lost), each=True, need="spare")

    async def _bearable(self, kind: BrokerKind, name: str) -> float | None:
        """How long it may go on like this before it is lost; ``None`` when it answers. Who is slow to answer a
        question to all may only be busy."""
        contract = wire.CONTRACTS[kind].get("info")
        if contract is None:  # a kind that is never looked for: whoever wrote that there is one, it was not this
            return AWAY_UNTIL_LOST_SECONDS
        try:
            await self._brokers.once(
                kind, name, "info", wire.InfoRequest(), contract.result, timeout_seconds=ANSWER_SECONDS
            )
        except CalqueError as error:
            if away(error):
                return SILENT_UNTIL_LOST_SECONDS if error.problem.code == "timeout" else AWAY_UNTIL_LOST_SECONDS
        return None

    async def _describe(self, kind: BrokerKind, name: str) -> ev.BrokerRegistered:
        asked = wire.InfoRequest()
        match kind:
            case "dsb":
                dsb = await self._brokers.once(kind, name, "info", asked, wire.DsbInfo)
                return ev.BrokerRegistered(
                    kind=kind,
                    name=name,
                    version=dsb.version,
                    types=dsb.types,
                    plans=dsb.plans,
                    attributes=(*dsb.attributes, *dsb.secret_attributes),
                    protocols=dsb.protocols,
                    copy_formats=dsb.copy_formats,
                    engine=dsb.engine,
                    engine_version=dsb.engine_version,
                    can_attach=dsb.can_attach,
                    limits=dsb.limits,
                    can_mask=dsb.can_mask,
                )
            case "psb":
                psb = await self._brokers.once(kind, name, "info", asked, wire.PsbInfo)
                return ev.BrokerRegistered(
                    kind=kind,
                    name=name,
                    version=psb.version,
                    types=psb.artifacts,
                    engine=psb.engine,
                    engine_version=psb.engine_version,
                    hooks=psb.hooks,
                )
            case _:
                crb = await self._brokers.once(kind, name, "info", asked, wire.CrbInfo)
                self.crb_fingerprints[name] = crb.fingerprint
                return ev.BrokerRegistered(
                    kind=kind,
                    name=name,
                    version=crb.version,
                    types=crb.repositories,
                    protocols=crb.protocols,
                    signing_key=crb.signing_key,
                )


def _key(info: ServiceInfo) -> tuple[BrokerKind, str] | None:
    kind, name = info.metadata.get("calque.kind"), info.metadata.get("calque.name")
    if kind in ("dsb", "psb", "crb") and name:
        return cast(BrokerKind, kind), name
    return None


def _changes(site: Site, found: dict[str, ev.BrokerRegistered], lost: Iterable[str]) -> list[Draft]:
    # by name: which of two that came up together is the first must not depend on who answered faster
    drafts = [Draft("broker", id, event) for id, event in sorted(found.items()) if site.brokers.get(id) != event]
    for id in lost:
        known = site.brokers.get(id)
        if known is not None and id not in found:
            drafts.append(Draft("broker", id, ev.BrokerLost(kind=known.kind, name=known.name)))
    return drafts


def announcement(site: Site, *, version: str, seal_key: str, fingerprints: dict[str, str]) -> ev.SiteAnnounced:
    """Who the site is; what is known of a repository's certificate stays while its broker is away."""
    known = site.announced.crb_fingerprints if site.announced else {}
    merged = {**known, **fingerprints}
    first = next((merged[name] for name in site.repository_order if name in merged), "")
    if not first and site.announced is not None:
        first = site.announced.crb_fingerprint
    return ev.SiteAnnounced(
        version=version,
        seal_key=seal_key,
        crb_fingerprint=first,
        crb_fingerprints=merged,
        images=site.images_accepted,
    )


class Doubts:
    """A change is believed when it was seen several times in a row."""

    def __init__(self) -> None:
        self._doubts: dict[tuple[str, str], tuple[bool, int]] = {}

    def believed(self, key: tuple[str, str], known: bool, seen: bool) -> bool:
        """Whether ``seen`` is to be taken for the state of ``key``, which was ``known`` to be another."""
        if known == seen:
            self._doubts.pop(key, None)
            return False
        verdict, times = self._doubts.get(key, (seen, 0))
        times = times + 1 if verdict == seen else 1
        if times < PROBES_UNTIL_BELIEVED:
            self._doubts[key] = (seen, times)
            return False
        self._doubts.pop(key, None)
        return True


class HealthWatch:
    """Records how the app services of running instances are, as their platforms' probes say."""

    def __init__(self, journal: Journal, brokers: Brokers) -> None:
        self._journal = journal
        self._brokers = brokers
        self._doubts = Doubts()

    async def look(self) -> None:
        """One round over all platforms; a change is believed when it was seen twice."""
        watched = [one for one in self._journal.site.instances.values() if one.state in ("running", "degraded")]
        platforms = {service.broker for one in watched for service in one.services.values() if service.broker}
        statuses: dict[tuple[str, str], wire.ServiceStatus] = {}
        silent: set[str] = set()
        for name in platforms:
            try:
                said = await self._brokers.once(
                    "psb", name, "describe", wire.DescribeServices(), wire.ServicesDescription
                )
            except CalqueError as error:
                logger.info("platform %s does not answer: %s", name, error)
                silent.add(name)
                continue
            statuses.update({(one.instance, one.service): one for one in said.services})
        changed: list[health.Change] = []
        well = {instance.id for instance in watched}
        for instance in watched:
            for service in instance.services.values():
                if service.broker in silent:
                    well.discard(instance.id)
                    continue
                status = statuses.get((instance.id, service.name))
                # a service that is held for a copy is well: its probe can't answer
                healthy = status is not None and (status.healthy or status.paused)
                if not healthy:
                    well.discard(instance.id)
                message = "" if healthy else _why(status)
                if self._doubts.believed((instance.id, service.name), service.healthy, healthy):
                    said_now = ev.ServiceHealthChanged(service=service.name, healthy=healthy, message=message)
                    changed.append((instance.id, said_now))
        if changed or any(health.moved(instance) for instance in watched):
            await self._journal.record(
                lambda site: health.verdicts(site, changed, seen_well=well), each=True, need="spare"
            )


def _why(status: wire.ServiceStatus | None) -> str:
    if status is None:
        return "the platform does not know it"
    return status.message or f"it is {status.state}"
