"""``python -m brokers.testkit KIND NAME``: does this broker keep the contract?"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec

from brokers.testkit.bench import Options
from brokers.testkit.checks import CHECKS
from brokers.testkit.report import as_json, as_table
from brokers.testkit.restarting import restart_by_command
from brokers.testkit.run import checks_of, conform
from bus.connection import Bus, BusSettings
from bus.settings import CONFIG_VARIABLE, BusSection
from schemas.problems import CalqueError
from schemas.values import ServiceSpec

CONFORMS, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 7


class SiteConfig(msgspec.Struct):
    """What of a process's settings says how to reach the bus of its site; the rest is not read."""

    bus: dict[str, object]
    site: str = ""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m brokers.testkit", description=__doc__)
    made.add_argument("kind", choices=("dsb", "psb", "crb"), help="kind of broker")
    made.add_argument("name", help="its name, as in its subjects")
    made.add_argument("--site", help="the site that it belongs to [default: of the settings]")
    made.add_argument("--server", action="append", help="URL of the site's NATS server; may be repeated")
    made.add_argument("--nkey", help="file with the nkey seed to log in with")
    made.add_argument("--inbox-prefix", default="_INBOX", help="where replies go")
    made.add_argument(
        "--config", type=Path, help=f"settings of the site's agent, instead of --server; else {CONFIG_VARIABLE}"
    )
    made.add_argument("--type", help="type of data service to provision (dsb)")
    made.add_argument("--plan", help="plan to provision with (dsb)")
    made.add_argument("--parameter", action="append", default=[], metavar="NAME=VALUE", help="for provision (dsb)")
    made.add_argument("--spec", type=Path, help="JSON of a ServiceSpec that runs the kit's app.py (psb)")
    made.add_argument("--peer", help="another repository of the site, for transfers (crb)")
    made.add_argument("--restart-command", help="restarts the broker and ends when that is done")
    made.add_argument("--only", action="append", default=[], metavar="PATTERN", help="checks such as 'dsb.bind.*'")
    made.add_argument("--patience", type=float, default=30.0, metavar="SECONDS", help="the longest wait for an answer")
    made.add_argument("-o", "--output", choices=("table", "json"), default="table")
    made.add_argument("--list", action="store_true", help="only list the checks")
    return made


def main() -> int:
    """Run; the exit code."""
    arguments = parser().parse_args()
    if arguments.list:
        for each in checks_of(arguments.kind, arguments.only):
            print(f"{each.id:<30} {each.sentence}  [{each.spec}]")
        return CONFORMS
    if not checks_of(arguments.kind, arguments.only):
        print(f"no check of {len(CHECKS)} is called {', '.join(arguments.only)}", file=sys.stderr)
        return USAGE
    try:
        settings, site = _where(arguments)
        options = Options(
            type=arguments.type,
            plan=arguments.plan,
            parameters=dict(pair.split("=", 1) for pair in arguments.parameter),
            spec=msgspec.json.decode(arguments.spec.read_bytes(), type=ServiceSpec) if arguments.spec else None,
            peer=arguments.peer,
        )
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        print(f"calque: {error}", file=sys.stderr)
        return USAGE
    try:
        return asyncio.run(_run(arguments, settings, site, options))
    except CalqueError as error:
        print(f"calque: {error}", file=sys.stderr)
        return UNREACHABLE


async def _run(arguments: argparse.Namespace, settings: BusSettings, site: str, options: Options) -> int:
    bus = await Bus.connect(settings, deadline_seconds=10.0)
    try:
        report = await conform(
            bus,
            site=site,
            kind=arguments.kind,
            broker=arguments.name,
            options=options,
            restart=restart_by_command(arguments.restart_command) if arguments.restart_command else None,
            only=arguments.only,
            patience_seconds=arguments.patience,
        )
    finally:
        await bus.close()
    print(as_json(report) if arguments.output == "json" else as_table(report))
    return CONFORMS if report.conforms else FAILED


def _where(arguments: argparse.Namespace) -> tuple[BusSettings, str]:
    """How to reach the bus, and of which site. Raises ValueError or OSError."""
    if arguments.server:
        site = str(arguments.site or "")
        settings = BusSettings(
            servers=arguments.server,
            nkey_seed_file=arguments.nkey,
            name="conformance",
            inbox_prefix=arguments.inbox_prefix,
        )
    else:
        path = arguments.config or os.environ.get(CONFIG_VARIABLE)
        if not path:
            raise ValueError(f"say where the bus is: --server, --config or {CONFIG_VARIABLE}")
        config = msgspec.json.decode(Path(path).read_bytes(), type=SiteConfig)
        site = str(arguments.site or config.site)
        settings = BusSection.model_validate({**config.bus, "name": "conformance"}).connection()
    if not site:
        raise ValueError("say which site the broker belongs to: --site")
    return settings, site


if __name__ == "__main__":
    sys.exit(main())
