"""Decisions: what a command to this site leads to - the events that accept it, or the problem that rejects it.

Pure, and made from the site's own state alone: no projection of anybody else takes part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas import commands as cmd
from schemas import events as ev
from schemas import saga
from schemas.configuration import inherited, left_out
from schemas.deadlines import check_deadline
from schemas.fitting import Fit, Offer, fit
from schemas.names import check_name
from schemas.problems import Problem, conflict, invalid, not_found
from schemas.template_check import check_choices, check_template
from schemas.values import Choices, ImageContent, ImagePart, Template
from site_agent.domain import attachments, consequences, decide_images, decide_repositories, plans
from site_agent.domain.accepting import Decision, accept
from site_agent.domain.instance import Instance
from site_agent.domain.masking import not_accepted, rules_for
from site_agent.domain.repositories import home, share
from site_agent.domain.site import Draft, Site


def decide(site: Site, command: cmd.SiteCommand, *, id: str, target: str) -> Decision:
    """What ``command`` with this ``id``, about the aggregate ``target``, leads to."""
    if id in site.cancelled_early:
        return conflict("operation", f"operation {id} was cancelled before it began", "send a new command")
    if problem := check_deadline(command.deadline_seconds):
        return problem
    match command:
        case cmd.SiteDeployInstance():
            return _deploy(site, command, id, target)
        case cmd.SiteRunImage():
            return _run(site, command, id, target)
        case cmd.SiteSaveInstance():
            return _save(site, command, id, target)
        case cmd.SiteStopInstance():
            return _stop(site, command, id, target)
        case cmd.SiteStartInstance():
            return _start(site, command, id, target)
        case cmd.SiteDeleteInstance():
            return _delete(site, command, id, target)
        case cmd.SiteTransferImage():
            return decide_images.transfer(site, command, id, target)
        case cmd.SiteForgetImage():
            return decide_images.forget(site, command, id, target)
        case cmd.SiteImportRepository() | cmd.SiteVerifyRepository() | cmd.SiteCollectRepository():
            return decide_repositories.tend(site, command, id, target)
        case cmd.SiteCancelOperation():
            return _cancel(site, command, target)
    return invalid("type", f"{type(command).__name__} is no command to a site")


def reject(id: str, kind: str, problem: Problem) -> list[Draft]:
    """The event that records a rejection, so that the same command gets the same answer."""
    return [Draft("command", id, ev.CommandRejected(problem=problem, kind=kind))]


def _new_instance(
    site: Site,
    command: cmd.SiteDeployInstance | cmd.SiteRunImage,
    id: str,
    target: str,
    *,
    kind: str,
    template: Template,
    choices: Choices,
    parts: Sequence[ImagePart] = (),
    content: ImageContent | None = None,
) -> Decision:
    if problem := check_name(command.name, field="name"):
        return problem
    if target in site.instances:
        return conflict("id", f"instance {target} exists already", "make a new id")
    if holder := site.named(command.name):
        return conflict(
            "name",
            f"site {site.name} has an app {command.name!r} already (instance {holder.id}, {holder.state})",
            "choose another name, or delete that app first",
        )
    absent = left_out(template, choices)
    held = {part.data_service: part.copy for part in parts}
    made_by = {part.data_service: part.broker for part in parts}
    formats = {part.data_service: part.copy_format for part in parts}
    chosen = _fit(site, template, choices, made_by=made_by, formats=formats)
    if isinstance(chosen, Problem):
        return chosen
    begun = ev.InstanceDeploying(
        name=command.name,
        template=template,
        by=command.by,
        environment=choices.environment,
        image=content.image if content else None,
        brokers=chosen.brokers,
        plans=chosen.plans,
        copies=held,
        environment_name=choices.environment_name,
        without=absent,
        artifacts=choices.artifacts,
        picked=chosen.picked,
        attached=choices.attach,
        adopted=choices.adopted,
    )
    steps = plans.deploy(chosen.template, restored=held, attached=choices.attach, from_image=content is not None)
    request = {"formats": _formats(content)} if content else {}
    return [
        Draft("instance", target, begun),
        *accept(site, command, id, kind=kind, target=target, name=command.name, steps=steps, request=request),
    ]


def _fit(
    site: Site, template: Template, choices: Choices, *, made_by: Mapping[str, str], formats: Mapping[str, str]
) -> Fit | Problem:
    """How this site serves what is to be deployed, or the first thing that speaks against it."""
    found = (
        check_template(template)
        or check_choices(template, choices)
        or fit(template, choices, offer(site), made_by=made_by, formats=formats)
    )
    return found[0] if isinstance(found, list) else found


def unserved(site: Site, command: cmd.SiteCommand) -> list[Problem]:
    """All that this site lacks to carry out a command that makes an instance; nothing for other commands."""
    made_by: dict[str, str] = {}
    formats: dict[str, str] = {}
    if isinstance(command, cmd.SiteDeployInstance):
        template, choices = command.template, cmd.choices(command)
    elif isinstance(command, cmd.SiteRunImage) and len(command.content.instances) == 1:
        source = command.content.instances[0]
        template, choices = source.configuration.template, inherited(source.configuration, cmd.choices(command))
        made_by = {part.data_service: part.broker for part in source.parts}
        formats = {part.data_service: part.copy_format for part in source.parts}
    else:
        return []
    if found := check_template(template) or check_choices(template, choices):
        return found
    fitting = fit(template, choices, offer(site), made_by=made_by, formats=formats)
    return fitting if isinstance(fitting, list) else []


def offer(site: Site) -> Offer:
    """What this site has for templates."""
    return Offer(
        site=site.name,
        brokers=tuple(site.brokers.values()),
        lost=tuple(site.lost_brokers.values()),
        version=site.announced.version if site.announced else "",
        secrets=frozenset(name for name, secret in site.secrets.items() if secret.there),
    )


def _deploy(site: Site, command: cmd.SiteDeployInstance, id: str, target: str) -> Decision:
    return _new_instance(
        site, command, id, target, kind="deploy", template=command.template, choices=cmd.choices(command)
    )


def _run(site: Site, command: cmd.SiteRunImage, id: str, target: str) -> Decision:
    content = command.content
    if len(content.instances) != 1:
        return invalid("content.instances", "an image of one app instance is needed here")
    source = content.instances[0]
    template, asked = source.configuration.template, cmd.choices(command)
    if problems := check_choices(template, asked):
        return problems[0]
    choices = inherited(source.configuration, asked)
    absent = left_out(template, choices)
    parts = [part for part in source.parts if part.data_service not in absent]
    if problem := not_accepted(site, parts):
        return problem
    accepted = site.announced.accepts if site.announced else ()
    for part in parts:
        if part.data_class not in accepted:
            return conflict(
                f"data_services.{part.data_service}",
                f"site {site.name} does not accept {part.data_class} data",
                "run the image at another site",
            )
        if not site.has_copy(part.copy):
            return conflict(
                f"copies.{part.data_service}",
                f"copy {part.copy} does not lie at site {site.name}",
                "transfer the image here first",
            )
    return _new_instance(
        site, command, id, target, kind="run", template=template, choices=choices, parts=parts, content=content
    )


def _formats(content: ImageContent) -> dict[str, str]:
    return {part.data_service: part.copy_format for one in content.instances for part in one.parts}


def _usable(site: Site, target: str, *states: str, verb: str) -> Instance | Problem:
    """The instance, when it is in one of ``states`` and nothing else works on it."""
    instance = site.instances.get(target)
    if instance is None or instance.state == "deleted":
        return not_found("app", f"site {site.name} has no app {target!r}", "see: calque app list")
    if busy := site.busy(target):
        return conflict(
            "app",
            f"operation {busy.id} ({busy.accepted.kind}) works on app {instance.name!r}",
            f"wait for it or cancel it: calque operation wait {busy.id}",
        )
    if instance.state not in states:
        return conflict(
            "app", f"app {instance.name!r} is {instance.state}", f"to {verb} it must be {' or '.join(states)}"
        )
    return instance


def _save(site: Site, command: cmd.SiteSaveInstance, id: str, target: str) -> Decision:
    instance = _usable(site, target, "running", "degraded", "stopped", verb="save")
    if isinstance(instance, Problem):
        return instance
    if command.image in site.images:
        return conflict("image", f"image {command.image} exists already", "make a new id")
    data = instance.template.data_services
    if missing := [name for name in data if name not in command.copies]:
        return invalid("copies", f"no copy id for data service {missing[0]!r}", "name a new copy id for each")
    placed = decide_images.place_save(site, instance, command.repository)
    if isinstance(placed, Problem):
        return placed
    masking = rules_for(site, instance, command)
    if isinstance(masking, Problem):
        return masking
    copies = {name: command.copies[name] for name in data}
    drafts = [
        Draft(
            "image",
            command.image,
            ev.ImageSaving(
                instance=target,
                instance_name=instance.name,
                template=f"{instance.template.name}@{instance.template.version}",
                copies=copies,
            ),
        )
    ]
    for name, copy in copies.items():
        drafts.append(
            Draft(
                "copy",
                copy,
                ev.CopyPreparing(
                    instance=target,
                    data_service=name,
                    image=command.image,
                    broker=instance.data_services[name].broker,
                ),
            )
        )
    request: dict[str, Any] = {
        "image": command.image,
        "copies": copies,
        "repository": home(wanted=command.repository, policy=site.policy, there=site.repositories()),
        "repositories": placed,
    }
    if command.masked:
        request["masking"] = msgspec.to_builtins(masking)
    if command.bytes_per_second:
        request["bytes_per_second"] = share(command.bytes_per_second, among=len(copies))
    return [
        *drafts,
        *accept(
            site,
            command,
            id,
            kind="save",
            target=target,
            name=instance.name,
            steps=plans.save(instance, masked=command.masked),
            request=request,
        ),
    ]


def _stop(site: Site, command: cmd.SiteCommand, id: str, target: str) -> Decision:
    instance = _usable(site, target, "running", "degraded", verb="stop")
    if isinstance(instance, Problem):
        return instance
    if problem := attachments.not_run_here(instance, verb="stop"):
        return problem
    steps = plans.stop(instance.template)
    return accept(site, command, id, kind="stop", target=target, name=instance.name, steps=steps)


def _start(site: Site, command: cmd.SiteCommand, id: str, target: str) -> Decision:
    instance = _usable(site, target, "stopped", "degraded", verb="start")
    if isinstance(instance, Problem):
        return instance
    if problem := attachments.not_run_here(instance, verb="start"):
        return problem
    steps = plans.start(instance)
    return accept(site, command, id, kind="start", target=target, name=instance.name, steps=steps)


def _delete(site: Site, command: cmd.SiteCommand, id: str, target: str) -> Decision:
    instance = _usable(site, target, "running", "degraded", "stopped", "failed", "deploying", "deleting", verb="delete")
    if isinstance(instance, Problem):
        return instance
    steps = plans.delete(instance)
    return accept(site, command, id, kind="delete", target=target, name=instance.name, steps=steps)


def _cancel(site: Site, command: cmd.SiteCancelOperation, target: str) -> Decision:
    operation = site.operations.get(target)
    if operation is None and command.parent is not None:
        # the hub's cancel overtook the command that it cancels: remember it, so that nothing begins later
        return [Draft("operation", target, ev.CancelRequested(by=command.by))]
    if operation is None:
        return not_found("operation", f"site {site.name} has no operation {target!r}", "see: calque operation list")
    events = saga.cancel(operation, command.by)
    if not events:
        state = operation.outcome or "being undone already"
        return conflict("operation", f"operation {target} is {state}", "nothing is left to cancel")
    return consequences.expand(site, target, events)
