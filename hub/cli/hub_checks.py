"""Checks by questions to the hub, and by listening to heartbeats."""

from __future__ import annotations

from collections.abc import Collection

from hub.cli.findings import Finding, ok, problem, skipped
from hub.cli.output import age
from hub.cli.version import skew
from hub.client import Client
from schemas.queries import BrokerView, HubView, OperationView, SiteView, StoppedView

LISTEN_SECONDS = 5.0
SKEW_SECONDS = 2.0
LAG_EVENTS = 1000
NEEDED = ("dsb", "psb", "crb")
"""The kinds of brokers without which a site can't run and save an app."""

HUB = "hub"


def check_hubs(hubs: Collection[HubView], *, events: int) -> list[Finding]:
    """Who answers; hubs of several versions at once read each other's events."""
    names = ", ".join(hub.name for hub in hubs)
    versions = sorted({hub.version for hub in hubs})
    if len(versions) > 1:
        said = ", ".join(f"{hub.name} is of {hub.version}" for hub in hubs)
        return [problem("hub", "", f"hubs of several versions share the work: {said}", "bring them to one version")]
    return [ok("hub", f"{names} answer{'s' if len(hubs) == 1 else ''}; {events} events")]


def check_sites(sites: Collection[SiteView]) -> list[Finding]:
    """Sites that do not report, or whose events the hub has not read for long."""
    found = []
    for site in sites:
        if site.state != "online":
            since = f", last heard of {age(site.last_beat)} ago" if site.last_beat else ", never heard of"
            found.append(
                problem(
                    "sites",
                    site.name,
                    f"it is {site.state}{since}",
                    f"see that its agent runs and reaches the hub ('calque logs {site.name}-agent' where it runs);"
                    " what it was told waits for it",
                    since=site.last_beat,
                )
            )
        elif (site.lag or 0) > LAG_EVENTS:
            remedy = "look again in a minute: 'calque site describe'; if it grows, see the link between the servers"
            found.append(problem("sites", site.name, f"the hub is {site.lag} events behind", remedy))
    return found or [ok("sites", f"{len(sites)} online" if sites else "there are none")]


def check_brokers(brokers: Collection[BrokerView], sites: Collection[SiteView]) -> list[Finding]:
    """Brokers that were there and are lost; sites that lack a kind of broker."""
    found = [
        problem(
            "brokers",
            f"{broker.site}/{broker.kind}-{broker.name}",
            f"it is {broker.state}: it no longer answers",
            f"see 'calque logs {broker.site}-{broker.kind}-{broker.name}' where it runs; apps that need it wait",
        )
        for broker in brokers
        if broker.state != "registered"
    ]
    for site in sites:
        there = {broker.kind for broker in brokers if broker.site == site.name}
        if missing := [kind for kind in NEEDED if kind not in there]:
            needs = f"it has no broker of kind {', '.join(missing)}"
            found.append(problem("brokers", site.name, needs, "start one that is set up for this site"))
    return found or [ok("brokers", f"{len(brokers)} answer")]


def check_versions(mine: str, *, hub: str, sites: Collection[SiteView]) -> list[Finding]:
    """Versions other than this program's."""
    others = {HUB: hub, **{site.name: site.version for site in sites}}
    found = [
        problem("versions", name, f"version {other} is {said} ({mine})", "bring them to the same version, sites first")
        for name, other in others.items()
        if (said := skew(mine, other))
    ]
    return found or [ok("versions", f"all {mine}")]


def check_events(stopped: Collection[StoppedView]) -> list[Finding]:
    """Aggregates that stand still, because a newer version wrote to them."""
    found = [
        problem(
            "events",
            f"{one.aggregate} {one.id} of {one.writer}",
            f"it holds {one.type}, which this hub does not know: it is shown as it was before, and nothing is decided"
            " about it",
            "upgrade the hub to the version that wrote it",
        )
        for one in stopped
    ]
    return found or [ok("events", "all are known")]


def check_cleanup(operations: Collection[OperationView]) -> list[Finding]:
    """Operations whose remains could not be removed yet."""
    found = [
        problem(
            "cleanup",
            f"{view.kind} {view.name} at {view.site}",
            f"it {view.state}, and what it had made is not removed yet ({view.cleanup})",
            f"it is tried again and again; see 'calque operation describe {view.id}' for what is in the way",
            since=view.ended_at,
        )
        for view in operations
        if view.cleanup in ("pending", "stuck") and view.state in ("failed", "cancelled")
    ]
    return found or [ok("cleanup", "nothing waits for it")]


async def check_clocks(client: Client, *, sites: Collection[str]) -> list[Finding]:
    """Clocks of sites against the hub's, from the times in their heartbeats; the hub's against ours."""
    heard = await client.beats(senders={HUB, *sites}, seconds=LISTEN_SECONDS)
    if HUB not in heard:
        return [skipped("clocks", "no heartbeat of the hub was heard")]
    base = heard[HUB].ahead_seconds
    found = []
    if abs(base) > SKEW_SECONDS:
        found.append(problem("clocks", HUB, f"its clock is {_apart(base)} this machine's", _SYNCHRONISE))
    for name in sorted(heard.keys() - {HUB}):
        ahead = heard[name].ahead_seconds - base
        if abs(ahead) > SKEW_SECONDS:
            found.append(problem("clocks", name, f"its clock is {_apart(ahead)} the hub's", _SYNCHRONISE))
    silent = [name for name in sites if name not in heard]
    unheard = f"; not heard: {', '.join(sorted(silent))}" if silent else ""
    return found or [ok("clocks", f"within {SKEW_SECONDS:g} s of each other{unheard}")]


_SYNCHRONISE = "let it follow a time server; order does not depend on it, but the times that people see do"


def _apart(seconds: float) -> str:
    return f"{abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"
