"""Decisions about images whose copies come to this site or leave it, and where copies are put. Pure."""

from __future__ import annotations

import msgspec

from schemas import commands as cmd
from schemas.problems import Problem, conflict
from schemas.values import ImageContent
from site_agent.domain import plans
from site_agent.domain.accepting import Decision, accept
from site_agent.domain.instance import Instance
from site_agent.domain.masking import not_accepted
from site_agent.domain.repositories import Item, home, place, share
from site_agent.domain.site import Site


def transfer(site: Site, command: cmd.SiteTransferImage, id: str, target: str) -> Decision:
    """Fetch what is missing: at the site or, when the command names one, in that repository."""
    content, wanted = command.content, command.repository
    if problem := not_accepted(site, [part for one in content.instances for part in one.parts]):
        return problem
    copies = copies_of(content)
    missing = [
        name
        for name, copy in copies.items()
        if not (site.has_copy(copy) if wanted is None else site.holds(copy, wanted))
    ]
    placed = _placed(site, [item for item in _items(content) if item.data_service in missing], wanted)
    if isinstance(placed, Problem):
        return placed
    if busy := site.busy(target):
        return conflict("image", f"operation {busy.id} works on this image here", "wait for it")
    holding = sorted({name for copy in copies.values() for name in site.holders(copy)})
    request = {
        "copies": copies,
        "content": msgspec.to_builtins(content),
        "source": command.source,
        "repository": home(wanted=wanted, policy=site.policy, there=site.repositories()),
        "repositories": placed,
        "holding": holding,
        "image": content.image,
    }
    if command.bytes_per_second:
        request["bytes_per_second"] = share(command.bytes_per_second, among=len(missing))
    steps = plans.transfer(missing)
    name = origin_of(content)
    return accept(site, command, id, kind="transfer", target=target, name=name, steps=steps, request=request)


def forget(site: Site, command: cmd.SiteForgetImage, id: str, target: str) -> Decision:
    """Remove the image's copies from every repository of this site that holds one."""
    if busy := site.busy(target):
        return conflict("image", f"operation {busy.id} works on this image here", "wait for it")
    copies = {name: copy for name, copy in copies_of(command.content).items() if site.has_copy(copy)}
    for instance in site.instances.values():
        used = {service.copy for service in instance.data_services.values()}
        operation = site.busy(instance.id)
        if operation is not None and operation.accepted.kind == "run" and used & set(copies.values()):
            return conflict(
                "image", f"app {instance.name!r} is being restored from it", f"wait for operation {operation.id}"
            )
    request = {"image": command.content.image, "copies": copies}
    steps = plans.forget(copies)
    name = origin_of(command.content)
    return accept(site, command, id, kind="forget", target=target, name=name, steps=steps, request=request)


def place_save(site: Site, instance: Instance, wanted: str | None) -> dict[str, str] | Problem:
    """Data service -> repository for a save of ``instance``."""
    template = instance.template
    items = [
        Item(
            app=instance.name,
            template=template.name,
            data_service=name,
            type=spec.type,
            data_class=spec.data_class,
            size=_last_size(site, instance, name),
        )
        for name, spec in template.data_services.items()
    ]
    return _placed(site, items, wanted)


def copies_of(content: ImageContent) -> dict[str, str]:
    """Data service -> copy."""
    return {part.data_service: part.copy for one in content.instances for part in one.parts}


def origin_of(content: ImageContent) -> str:
    """What people call the app that an image was made of."""
    return ", ".join(one.instance_name for one in content.instances)


def _items(content: ImageContent) -> list[Item]:
    return [
        Item(
            app=one.instance_name,
            template=one.configuration.template.name,
            data_service=part.data_service,
            type=part.type,
            data_class=part.data_class,
            size=part.size,
        )
        for one in content.instances
        for part in one.parts
    ]


def _placed(site: Site, items: list[Item], wanted: str | None) -> dict[str, str] | Problem:
    return place(
        items,
        site=site.name,
        wanted=wanted,
        policy=site.policy,
        there=site.repositories(),
        known=list(site.repository_order),
    )


def _last_size(site: Site, instance: Instance, data_service: str) -> int | None:
    """What the last copy of it took, or the one that it was restored from, as far as this site made them."""
    restored = instance.data_services[data_service].copy
    sizes = [
        copy.summary.size
        for copy in site.copies.values()
        if copy.summary is not None
        and (copy.id == restored or (copy.instance, copy.data_service) == (instance.id, data_service))
    ]
    return sizes[-1] if sizes else None
