"""``broker conform``: the conformance run of the broker kit, against a broker of the stack in the home.

The run is a process of its own (``python -m brokers.testkit``), as every broker is: the hub knows no broker's code.
It speaks as the site's agent, whose settings in the home say how.
"""

from __future__ import annotations

import asyncio
import sys

import click

from hub.cli.exits import Exit
from hub.cli.options import output_option, stack_options
from hub.cli.session import Session, asynchronous
from hub.client.errors import NotFoundError
from schemas.problems import not_found

KINDS = ("dsb", "psb", "crb")


@click.command("conform")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--site", required=True, help="The site of the broker.")
@click.option("--type", "service_type", default=None, help="Type of data service to provision (dsb).")
@click.option("--plan", default=None, help="Plan to provision with (dsb).")
@click.option("--peer", default=None, help="Another repository of the site, for transfers (crb).")
@click.option("--restart-command", default=None, help="Restarts the broker, and ends when that is done.")
@click.option("--only", multiple=True, metavar="PATTERN", help="Checks such as 'dsb.bind.*'; may be repeated.")
@stack_options
@output_option(("table", "json"))
@asynchronous
async def conform_broker(
    session: Session,
    kind: str,
    name: str,
    site: str,
    service_type: str | None,
    plan: str | None,
    peer: str | None,
    restart_command: str | None,
    only: tuple[str, ...],
) -> int:
    """Check that a broker, in whatever language, keeps the contract.

    KIND is dsb, psb or crb, NAME the broker's name. What the checks make, they remove. A check that fails is told
    with what was sent, what came and what the contract says. Exit code 0 when all that could be checked holds.
    """
    config = session.home / "config" / f"{site}-agent.json"
    if not config.is_file():
        raise NotFoundError(not_found("site", f"{session.home} has no site {site}", "see: calque site list"))
    arguments = [kind, name, "--config", str(config), "--site", site, "-o", session.format]
    for option, value in (
        ("--type", service_type),
        ("--plan", plan),
        ("--peer", peer),
        ("--restart-command", restart_command),
    ):
        if value is not None:
            arguments.append(f"{option}={value}")
    arguments += [f"--only={pattern}" for pattern in only]
    sys.stdout.flush()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "brokers.testkit", *arguments)
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        process.terminate()
        await process.wait()
        raise
    return code if code in set(Exit) else Exit.FAILED
