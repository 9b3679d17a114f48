"""Masked saves, and sites that take masked images only. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from schemas import commands as cmd
from schemas import masked_images
from schemas.masking import Masking
from schemas.masking_rules import check_all
from schemas.problems import Problem, conflict, invalid
from schemas.values import ImagePart
from site_agent.domain.instance import DataService, Instance
from site_agent.domain.site import Site


def rules_for(site: Site, instance: Instance, command: cmd.SiteSaveInstance) -> dict[str, Masking] | Problem:
    """Data service -> its rules in a save that masks; nothing in one that does not. A data service that nothing is
    said of, or whose broker can't mask, is a problem: nothing leaves unmasked because it was forgotten."""
    if not command.masked:
        if command.masking:
            return invalid("masking", "there are rules, and the save is not to be masked", "ask for a masked save")
        return {}
    written = instance.written.data_services
    for problem in check_all(command.masking, data_services=written, field="masking"):
        return problem
    services = instance.template.data_services
    given = command.masking or {name: spec.masking for name, spec in services.items() if spec.masking is not None}
    for name in services:
        rules = given.get(name)
        if rules is None:
            return invalid(
                f"masking.{name}",
                f"no rule says how data service {name!r} is masked",
                "write rules for it, or 'keep: true' if all that it holds is harmless",
            )
        if not rules.keep and (why := why_not_maskable(site, instance.data_services[name])):
            return conflict(
                f"masking.{name}",
                why,
                "say 'keep: true' of it if all that it holds is harmless, or save without masking",
            )
    return {name: given[name] for name in services}


def why_not_maskable(site: Site, service: DataService) -> str:
    """Why copies of a data service can't be masked by its broker; empty when they can."""
    known = site.brokers.get(f"dsb-{service.broker}")
    if known is None or not known.can_mask:
        return f"broker {service.broker!r} of data service {service.name!r} can't mask"
    if any(plan.name == service.plan and not plan.can_mask for plan in known.plans):
        return f"data service {service.name!r} has the plan {service.plan!r}, whose copies can't be masked"
    return ""


def not_accepted(site: Site, parts: Iterable[ImagePart]) -> Problem | None:
    """Why these parts of an image may not come to this site, as far as masking goes."""
    return masked_images.not_accepted(site.name, site.images_accepted, parts)


def key_reference(image: str) -> str:
    """Where the site's store keeps the key of an image while it is saved."""
    return f"secret:masking/{image}"
