"""``doctor``: looks for what is wrong, and says what to do."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Sequence

import click

from hub.cli.certificate_checks import check_certificates
from hub.cli.colour import colour
from hub.cli.condition_checks import (
    check_consumers,
    check_disks,
    check_limits,
    check_snapshots,
    check_stuck,
)
from hub.cli.exits import Exit
from hub.cli.findings import CHECKS, Finding, ok, problem, skipped
from hub.cli.hub_checks import (
    check_brokers,
    check_cleanup,
    check_clocks,
    check_events,
    check_hubs,
    check_sites,
    check_versions,
)
from hub.cli.local_checks import check_disk, check_home, check_left_behind, check_parts, check_ports
from hub.cli.message_checks import check_letters, check_room, check_strays
from hub.cli.options import document_options
from hub.cli.output import age, printable
from hub.cli.session import Session, asynchronous
from hub.cli.tables import terminal_width
from hub.cli.version import own_version
from hub.client import Client, HubUnreachableError
from hub.client.contexts import Choice
from hub.client.errors import ForbiddenError
from hub.stack.running import look
from schemas.problems import CalqueError
from schemas.queries import HubView, SiteView, StatusView

_OF_HUB = (
    *("sites", "brokers", "versions", "events", "clocks", "cleanup", "letters", "strays", "room"),
    *("stuck", "consumers", "snapshots", "disks", "limits"),
)
_SIGNS = {
    "ok": ("ok", "green"),
    "note": ("note", "cyan"),
    "problem": ("PROBLEM", "red"),
    "skipped": ("skipped", "yellow"),
}
_LABEL = 7
_INDENT = _LABEL + 16


@click.command(
    epilog="\b\nChecks:\n" + "\n".join(f"  {name:<12} {what}" for name, what in CHECKS.items()),
)
@document_options
@asynchronous
async def doctor(session: Session) -> int:
    """Look for what is wrong with the stack of this machine and with the hub, and say what to do.

    Exits with 1 when there is a problem.
    """
    findings: list[Finding] = []
    try:
        choice = session.choice
        findings.append(ok("context", f"{choice.name or choice.home} (by {choice.why})"))
    except CalqueError as error:
        findings.append(problem("context", "", error.problem.message, error.problem.remedy or "see 'calque context'"))
    else:
        findings += _local(choice)
        findings += await _remote(session, choice)
    findings.sort(key=lambda finding: list(CHECKS).index(finding.check))
    problems = [finding for finding in findings if finding.state == "problem"]
    document = {"healthy": not problems, "findings": [dataclasses.asdict(finding) for finding in findings]}
    if not session.shown(document):
        for finding in findings:
            _tell(finding)
        click.echo("")
        click.echo("1 problem" if len(problems) == 1 else f"{len(problems) or 'no'} problems")
    return Exit.FAILED if problems else Exit.OK


_OF_HOME = ("home", "stack", "parts", "ports", "disk", "certificates")


def _local(choice: Choice) -> list[Finding]:
    home = choice.home
    if home is None:
        return [skipped(check, "the hub is not one of this machine") for check in _OF_HOME]
    stack = look(home)
    return [
        *check_home(home),
        *check_left_behind(stack),
        *check_parts(stack),
        *check_ports(stack),
        *check_disk(home),
        *check_certificates(home),
    ]


async def _remote(session: Session, choice: Choice) -> list[Finding]:
    try:
        async with session.client() as client:
            status = await client.status()
            found = check_hubs(await _hubs(client, status), events=status.events)
            found += check_sites(status.sites)
            brokers, operations = await client.brokers(), await client.operations(limit=1000)
            found += check_brokers(brokers, status.sites)
            found += check_limits(brokers)
            found += check_versions(own_version(), hub=status.version, sites=status.sites)
            found += check_events(status.stopped)
            found += check_cleanup(operations)
            found += check_stuck(operations)
            found += check_disks(status.sites)
            found += await _condition(client, status.sites)
            found += await _messages(client, status.sites)
            online = [site.name for site in status.sites if site.state == "online"]
            return found + await check_clocks(client, sites=online)
    except HubUnreachableError as error:
        where = str(choice.home) if choice.home else ", ".join(choice.context.servers)
        unreachable = problem("hub", where, error.problem.message, error.problem.remedy or "start it: 'calque up'")
    except CalqueError as error:
        unreachable = problem("hub", choice.name or "", error.problem.message, error.problem.remedy or "see its log")
    return [unreachable, *(skipped(check, "the hub does not answer") for check in _OF_HUB)]


async def _hubs(client: Client, status: StatusView) -> tuple[HubView, ...]:
    try:
        return await client.hubs()
    except HubUnreachableError:  # one of a version that is not asked this
        return (HubView(name=status.hub, id="", version=status.version, answering=True),)


async def _messages(client: Client, sites: Sequence[SiteView]) -> list[Finding]:
    try:
        letters, strays, streams = await client.dead_letters(), await client.strays(), await client.room()
        return [*check_letters(letters), *check_strays(strays), *check_room(streams, sites)]
    except ForbiddenError:
        return [skipped(check, "only operators may ask") for check in ("letters", "strays", "room")]


async def _condition(client: Client, sites: Sequence[SiteView]) -> list[Finding]:
    """What the hub says of its own condition; one that is older does not know the question."""
    try:
        condition = await client.condition()
    except HubUnreachableError:
        raise
    except CalqueError as error:
        return [skipped(check, error.problem.message) for check in ("consumers", "snapshots")]
    return [*check_consumers(condition, sites), *check_snapshots(condition)]


def _tell(finding: Finding) -> None:
    word, shade = _SIGNS[finding.state]
    coloured = colour(sys.stdout)
    label = click.style(f"{word:<{_LABEL}}", fg=shade) if coloured else f"{word:<{_LABEL}}"
    about = f"{finding.subject}: " if finding.subject else ""
    since = f" (since {age(finding.since)} ago)" if finding.since else ""
    first, *more = _broken(f"{about}{printable(finding.message)}{since}")
    click.echo(f"{label}  {finding.check:<12}  {first}", color=coloured)
    remedy = _broken(f"-> {finding.remedy}") if finding.remedy else []
    for line in (*more, *remedy, *(f" | {printable(line)}" for line in finding.details)):
        click.echo(" " * _INDENT + line)


def _broken(text: str) -> list[str]:
    """``text`` in lines that fit beside the labels, if this is a terminal."""
    width = terminal_width()
    if width is None:
        return [text]
    return textwrap.wrap(text, max(width - _INDENT, 20), break_long_words=False, break_on_hyphens=False) or [""]
