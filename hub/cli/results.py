"""How one app, image, operation, ... is shown."""

from __future__ import annotations

import click

from hub.cli.output import age, length, seconds, size
from hub.cli.session import Session
from hub.cli.tables import show_fields, show_table
from hub.client import Started
from schemas.masking import Masked
from schemas.queries import AppView, BrokerView, ImageView, OperationView, SiteView


def show_started(session: Session, started: Started, *, said: str) -> None:
    """What a verb with ``--no-wait`` prints."""
    document = {**started._asdict(), "state": "queued" if started.queued else "accepted"}
    if session.shown(document, started.operation or started.command):
        return
    session.tell_queued(started)
    if started.operation is None:
        click.echo(said)
    else:
        click.echo(started.operation)
        session.say(f"{said}; wait for it with 'calque operation wait {started.operation}'")


def show_app(session: Session, app: AppView) -> None:
    """One app with its services and bindings."""
    if session.shown(app, app.name):
        return
    show_fields(
        {
            "name": app.name,
            "id": app.id,
            "site": app.site,
            "template": app.template,
            "environment": app.environment,
            "left out": app.without,
            "image": app.image,
            "state": f"{app.state} (adopted: its app services run somewhere else)" if app.adopted else app.state,
            "status": f"{app.status} (stale: the site does not report)" if app.stale else app.status,
            "url": app.url,
            "message": app.message,
            "operation": app.operation,
            "created": app.created_at,
        }
    )
    if app.services:
        click.echo("")
        show_table(
            ("service", "type", "state", "healthy", "broker", "url", "message"),
            [(s.name, s.type, s.state, s.healthy, s.broker, s.url, s.message) for s in app.services],
        )
    if app.data_services:
        click.echo("")
        show_table(
            ("data service", "type", "origin", "state", "healthy", "broker", "plan", "copy", "restored by", "binding"),
            [
                (
                    d.name,
                    d.type,
                    d.origin,
                    d.state,
                    d.healthy,
                    d.broker,
                    d.plan,
                    d.copy,
                    d.method,
                    {**d.binding, **dict.fromkeys(d.secret_refs, "***")},
                )
                for d in app.data_services
            ],
        )
    if app.configuration:
        click.echo("")
        show_table(
            ("variable", "value", "layer", "from"),
            [
                (
                    f"{each.service}.{each.variable}",
                    each.value if each.secret is None else f"*** (secret {each.secret})",
                    each.layer,
                    each.field,
                )
                for each in app.configuration
            ],
        )


def show_image(session: Session, image: ImageView) -> None:
    """One image with its parts."""
    if session.shown(image, image.name):
        return
    show_fields(
        {
            "name": image.name,
            "id": image.id,
            "state": image.state,
            "from": f"{image.instance_name} at {image.site}",
            "found in": image.found_in,
            "signed by": image.signer,
            "template": image.template,
            "environment": image.environment,
            "left out": image.without,
            "parent": image.parent,
            "tags": image.tags,
            "comment": image.comment,
            "level": image.level,
            "masked": _masked_whole(image),
            "writers waited": seconds(image.writers_wait_seconds),
            "size": size(image.size),
            "stored": size(image.stored),
            "kept until": image.keep_until,
            "at": image.sites,
            "message": image.message,
            "created": image.created_at,
        }
    )
    if image.parts:
        click.echo("")
        show_table(
            ("data service", "type", "of", "copy", "state", "level", "masked", "size", "stored", "locations"),
            [
                (
                    p.data_service,
                    p.type,
                    p.origin,
                    p.copy,
                    p.state,
                    p.level,
                    _masked(p.masked),
                    size(p.size),
                    size(p.stored),
                    p.locations,
                )
                for p in image.parts
            ],
        )


def _masked_whole(image: ImageView) -> str:
    if image.masked:
        return "yes"
    return "in part" if any(part.masked for part in image.parts) else "no"


def _masked(masked: Masked | None) -> str:
    """By what a part was masked: the beginning of its rules' digest."""
    if masked is None:
        return ""
    if masked.keep:
        return "kept"
    left_out = f", {masked.rows_left_out} rows left out" if masked.subset else ""
    return f"{masked.columns} columns by {masked.rules[:12]}{left_out}"


def show_operation(session: Session, view: OperationView) -> None:
    """One operation with its steps."""
    if session.shown(view, view.id):
        return
    show_fields(
        {
            "id": view.id,
            "kind": view.kind,
            "name": view.name,
            "target": view.target,
            "site": view.site,
            "state": f"{view.state} (undoing)" if view.undoing else view.state,
            "problem": view.problem.sentence() if view.problem else None,
            "cleanup": None if view.cleanup == "none" else view.cleanup,
            "by": view.principal,
            "part of": view.parent,
            "started": view.children,
            "warnings": warnings(view),
            "created": view.created_at,
            "deadline": _deadline(view),
            "ended": view.ended_at,
        }
    )
    if view.steps:
        click.echo("")
        show_table(
            ("step", "state", "attempt", "problem"),
            [
                (f"{s.step.action} {s.step.part}", s.state, s.attempt or None, s.problem and s.problem.sentence())
                for s in view.steps
            ],
        )


YEAR_SECONDS = 365 * 86400.0


def _deadline(view: OperationView) -> str | None:
    """When the operation goes back if it has not succeeded; ``None`` where it would be years away."""
    if not 0 < view.deadline_seconds < YEAR_SECONDS:
        return None
    return f"{length(view.deadline_seconds)} after that"


def warnings(view: OperationView) -> list[str]:
    """What went wrong in steps that can't fail the operation."""
    results = (each for each in view.result.values() if isinstance(each, dict))
    return [str(each["warning"]) for each in results if "warning" in each]


def show_site(session: Session, site: SiteView, *, apps: tuple[AppView, ...], brokers: tuple[BrokerView, ...]) -> None:
    """One site with what it can do and what runs there."""
    if session.shown({"site": site, "apps": apps, "brokers": brokers}, site.name):
        return
    show_fields(
        {
            "name": site.name,
            "state": site.state,
            "version": site.version,
            "last beat": f"{age(site.last_beat)} ago ({site.last_beat})" if site.last_beat else "",
            "apps": str(site.apps),
            "images": str(site.images),
            "takes in": "masked images only" if site.images_accepted == "masked" else "",
            "lag": "unknown" if site.lag is None else f"{site.lag} events",
            **_condition(site),
        }
    )
    if brokers:
        click.echo("")
        show_table(
            ("broker", "state", "types", "plans", "version"),
            [(f"{b.kind}-{b.name}", b.state, b.types, [plan.name for plan in b.plans], b.version) for b in brokers],
        )
    if apps:
        click.echo("")
        show_table(("app", "state", "status", "url"), [(app.name, app.state, app.status, app.url) for app in apps])


def _condition(site: SiteView) -> dict[str, str]:
    """What the site said of itself last."""
    said = site.condition
    if said is None:
        return {}
    limit = f" of {size(said.outbox_limit_bytes)}" if said.outbox_limit_bytes else ""
    found = {"outbox": f"{size(said.outbox_bytes)}{limit}, {said.position} events"}
    if said.disk_free_bytes is not None:
        found["disk"] = f"{size(said.disk_free_bytes)} of {size(said.disk_total_bytes or 0)} free"
    return {**found, "dead letters": str(said.dead_letters)}


def show_broker(session: Session, broker: BrokerView) -> None:
    """One broker with its plans."""
    name = f"{broker.site}/{broker.kind}-{broker.name}"
    if session.shown(broker, name):
        return
    show_fields(
        {
            "name": name,
            "site": broker.site,
            "kind": broker.kind,
            "state": broker.state,
            "types": broker.types,
            "engine": f"{broker.engine} {broker.engine_version}".strip(),
            "version": broker.version,
            "can attach": broker.can_attach if broker.kind == "dsb" else None,
            "limits": "; ".join(broker.limits),
        }
    )
    if broker.plans:
        click.echo("")
        show_table(
            ("plan", "per month", "limits", "description"),
            [
                (
                    plan.name,
                    "unknown" if plan.monthly_cost is None else f"{plan.monthly_cost:.2f} {plan.currency}",
                    plan.limits,
                    plan.description,
                )
                for plan in broker.plans
            ],
        )
