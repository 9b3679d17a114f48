"""How apps, images, operations and the rest are shown."""

from __future__ import annotations

from collections.abc import Sequence

import click

from hub.cli.output import age, printable, seconds, show_fields, show_json, show_table, size
from hub.cli.session import Session
from hub.client import Started
from schemas.queries import (
    AppView,
    BrokerView,
    ImageView,
    OperationView,
    SiteView,
    StatusView,
    TemplateView,
)


def show_started(session: Session, started: Started, *, said: str) -> None:
    """What a verb with ``--no-wait`` prints."""
    if session.json:
        show_json({**started._asdict(), "state": "queued" if started.queued else "accepted"})
        return
    session.tell_queued(started)
    if started.operation is None:
        click.echo(said)
    else:
        click.echo(started.operation)
        session.say(f"{said}; wait for it with 'calque operation wait {started.operation}'")


def show_apps(session: Session, apps: Sequence[AppView]) -> None:
    """A list of apps."""
    if session.json:
        show_json(apps)
        return
    show_table(
        ("name", "site", "state", "status", "template", "image", "url", "age"),
        [
            (
                app.name,
                app.site,
                app.state,
                f"{app.status} (stale)" if app.stale else app.status,
                app.template,
                app.image,
                app.url,
                age(app.created_at),
            )
            for app in apps
        ],
        empty="no apps; deploy one with 'calque deploy TEMPLATE --site SITE --name NAME'",
    )


def show_app(session: Session, app: AppView) -> None:
    """One app with its services and bindings."""
    if session.json:
        show_json(app)
        return
    show_fields(
        {
            "name": app.name,
            "id": app.id,
            "site": app.site,
            "template": app.template,
            "image": app.image,
            "state": app.state,
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
            ("data service", "type", "state", "broker", "plan", "copy", "binding"),
            [
                (
                    d.name,
                    d.type,
                    d.state,
                    d.broker,
                    d.plan,
                    d.copy,
                    {**d.binding, **dict.fromkeys(d.secret_refs, "***")},
                )
                for d in app.data_services
            ],
        )


def show_images(session: Session, images: Sequence[ImageView]) -> None:
    """A list of images."""
    if session.json:
        show_json(images)
        return
    show_table(
        ("name", "state", "from", "site", "template", "level", "size", "stored", "sites", "tags", "age"),
        [
            (
                image.name,
                image.state,
                image.instance_name,
                image.site,
                image.template,
                image.level,
                size(image.size),
                size(image.stored),
                image.sites,
                image.tags,
                age(image.created_at),
            )
            for image in images
        ],
        empty="no images; save one with 'calque save APP --name NAME'",
    )


def show_image(session: Session, image: ImageView) -> None:
    """One image with its parts."""
    if session.json:
        show_json(image)
        return
    show_fields(
        {
            "name": image.name,
            "id": image.id,
            "state": image.state,
            "from": f"{image.instance_name} at {image.site}",
            "template": image.template,
            "parent": image.parent,
            "tags": image.tags,
            "comment": image.comment,
            "level": image.level,
            "writers waited": seconds(image.writers_wait_seconds),
            "size": size(image.size),
            "stored": size(image.stored),
            "at": image.sites,
            "message": image.message,
            "created": image.created_at,
        }
    )
    if image.parts:
        click.echo("")
        show_table(
            ("data service", "type", "copy", "state", "level", "size", "stored", "locations"),
            [
                (p.data_service, p.type, p.copy, p.state, p.level, size(p.size), size(p.stored), p.locations)
                for p in image.parts
            ],
        )


def show_operations(session: Session, operations: Sequence[OperationView]) -> None:
    """A list of operations."""
    if session.json:
        show_json(operations)
        return
    show_table(
        ("id", "kind", "name", "site", "state", "steps", "cleanup", "by", "age"),
        [
            (
                view.id,
                view.kind,
                view.name,
                view.site,
                view.state,
                f"{sum(step.state == 'done' for step in view.steps)}/{len(view.steps)}",
                view.cleanup,
                view.principal,
                age(view.created_at),
            )
            for view in operations
        ],
        empty="no operations yet",
    )


def show_operation(session: Session, view: OperationView) -> None:
    """One operation with its steps."""
    if session.json:
        show_json(view)
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
            "created": view.created_at,
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


def show_templates(session: Session, templates: Sequence[TemplateView]) -> None:
    """A list of template versions."""
    if session.json:
        show_json(templates)
        return
    show_table(
        ("name", "version", "services", "data services", "digest", "by", "age"),
        [
            (t.name, t.version, t.services, t.data_services, t.digest[:12], t.applied_by, age(t.applied_at))
            for t in templates
        ],
        empty="no templates; apply one with 'calque template apply FILE'",
    )


def show_sites(session: Session, sites: Sequence[SiteView]) -> None:
    """A list of sites."""
    if session.json:
        show_json(sites)
        return
    show_table(
        ("name", "state", "apps", "images", "brokers", "last beat", "lag", "version"),
        [(s.name, s.state, s.apps, s.images, s.brokers, age(s.last_beat), s.lag, s.version) for s in sites],
        empty="no sites",
    )


def show_brokers(session: Session, brokers: Sequence[BrokerView]) -> None:
    """A list of brokers."""
    if session.json:
        show_json(brokers)
        return
    show_table(
        ("site", "kind", "name", "state", "types", "plans", "engine", "version"),
        [
            (
                b.site,
                b.kind,
                b.name,
                b.state,
                b.types,
                [plan.name for plan in b.plans],
                f"{b.engine} {b.engine_version}".strip(),
                b.version,
            )
            for b in brokers
        ],
        empty="no brokers",
    )


def show_status(session: Session, status: StatusView) -> None:
    """The whole picture."""
    if session.json:
        show_json(status)
        return
    show_fields(
        {
            "version": status.version,
            "hub": status.hub,
            "apps": {state: count for state, count in status.apps.items() if count},
            "images": str(status.images),
            "operations": {state: count for state, count in status.operations.items() if count},
            "events": str(status.events),
            "unassigned": [printable(each) for each in status.unassigned],
        }
    )
    click.echo("")
    show_sites(session, status.sites)
