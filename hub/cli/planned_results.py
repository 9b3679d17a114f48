"""How a plan is shown."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hub.cli.output import size
from hub.cli.session import Session
from hub.cli.tables import show_fields, show_table
from schemas.planning import Candidate, PlannedDataService, PlanView

_DIGITS = 12


def show_plan(session: Session, view: PlanView) -> None:
    """A table of the sites when there are several, and what would be done at the one that is meant."""
    if session.shown(view, *(one.site for one in view.candidates if one.fits)):
        return
    if len(view.candidates) > 1:
        _show_sites(view.candidates)
        return
    for candidate in view.candidates:
        _show_candidate(view, candidate)


def _show_sites(candidates: Sequence[Candidate]) -> None:
    show_table(
        ("site", "state", "fits", "per month", "to fetch", "plan", "lacks"),
        [
            (
                one.site,
                one.state,
                "yes" if one.fits else "no",
                _cost(one),
                size(one.transfer.bytes) if one.transfer else "",
                one.digest[:_DIGITS],
                "; ".join(problem.sentence() for problem in one.lacks),
            )
            for one in candidates
        ],
        fit=False,
    )


def _show_candidate(view: PlanView, one: Candidate) -> None:
    if one.plan is None:
        show_fields({"verb": view.verb, "name": view.name, "site": f"{one.site} ({one.state})", "fits": "no"})
        for problem in one.lacks:
            click.echo(f"  lacks: {problem.sentence()}")
        return
    plan, transfer = one.plan, one.transfer
    show_fields(
        {
            "verb": view.verb,
            "name": plan.name,
            "site": f"{one.site} ({one.state})",
            "template": plan.template,
            "per month": _cost(one),
            "fetch": f"{size(transfer.bytes)} from {transfer.source}" if transfer else None,
            "plan": one.digest,
        }
    )
    if plan.data_services:
        click.echo("")
        show_table(
            ("data service", "type", "does", "broker", "plan", "per month", "engine", "size"),
            [
                (each.name, each.type, each.does, each.broker, each.plan, _price(each), each.engine, size(each.bytes))
                for each in plan.data_services
            ],
        )
    if plan.services:
        click.echo("")
        show_table(
            ("app service", "type", "does", "platform", "artifact"),
            [(each.name, each.type, each.does, each.platform, each.artifact) for each in plan.services],
        )
    if plan.changes:
        click.echo("")
        show_table(
            ("variable", "is", "becomes"),
            [(f"{each.service}.{each.name}", each.was, each.value) for each in plan.changes],
        )
    steps = [*(transfer.steps if transfer else ()), *plan.steps]
    click.echo("")
    click.echo("steps  " + ", ".join(step.id for step in steps))


def _price(service: PlannedDataService) -> str:
    return "unknown" if service.monthly_cost is None else f"{service.monthly_cost:.2f} {service.currency}".strip()


def _cost(one: Candidate) -> str:
    if one.plan is None or all(each.does not in ("provision", "restore") for each in one.plan.data_services):
        return ""
    return "unknown" if one.monthly_cost is None else f"{one.monthly_cost:.2f} {one.currency}".strip()
