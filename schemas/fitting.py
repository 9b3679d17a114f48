"""Which broker of a site serves which part of a template, and what the site lacks. Pure.

A site decides by this whether it accepts a deployment; the hub may ask the same question of what sites have told it,
and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.configuration import artifacts_of, effective, secret_names
from schemas.events import BrokerRegistered
from schemas.hook_check import kinds_of_hooks
from schemas.problems import Problem, conflict, invalid, not_found, temporary
from schemas.references import references
from schemas.site_secrets import name_in, secret_not_set
from schemas.values import Artifact, Attachment, Choices, DataServiceSpec, ServiceSpec, Template
from schemas.versions import satisfies

AWAY_SECONDS = 5.0
"""What a broker that was restarted takes to come back."""


class Offer(NamedTuple):
    """What a site has: its brokers, the version of Calque there, and the names of its secrets (``None``: unknown,
    which holds nothing up). ``lost`` are brokers that it had and that do not answer now."""

    site: str
    brokers: Sequence[BrokerRegistered]
    version: str = ""
    secrets: frozenset[str] | None = None
    lost: Sequence[BrokerRegistered] = ()

    def of_kind(self, kind: str) -> list[BrokerRegistered]:
        """The brokers of one kind, by name."""
        return sorted((one for one in self.brokers if one.kind == kind), key=lambda one: one.name)


class Fit(NamedTuple):
    """How a site serves a template: ``template`` is what runs (:func:`schemas.configuration.effective`), ``brokers``
    the broker of each part, ``plans`` the plan of each data service, ``picked`` the artifact of each app service that
    may run several."""

    template: Template
    brokers: dict[str, str]
    plans: dict[str, str]
    picked: dict[str, Artifact]


class _Chosen(NamedTuple):
    broker: BrokerRegistered
    detail: str


def fit(
    template: Template,
    choices: Choices,
    offer: Offer,
    *,
    made_by: Mapping[str, str] | None = None,
    formats: Mapping[str, str] | None = None,
) -> Fit | list[Problem]:
    """How the site behind ``offer`` serves ``template``, or all that it lacks.

    ``made_by`` is data service -> broker that made its copy and has to restore it, ``formats`` that of the copy, which
    may ask for a plan. Template and choices must have been checked (:func:`schemas.template_check.check_template`,
    :func:`schemas.choices_check.check_choices`).
    """
    reduced = effective(template, choices)
    lacking = list(_app(template, offer))
    data: dict[str, _Chosen] = {}
    for name, spec in reduced.data_services.items():
        wanted, copied = (made_by or {}).get(name), (formats or {}).get(name, "")
        found = _data_service(offer, name, spec, choices, wanted=wanted, copy_format=copied)
        if isinstance(found, Problem):
            lacking.append(found)
        else:
            data[name] = found
    platforms: dict[str, tuple[BrokerRegistered, Artifact]] = {}
    for name in reduced.services:
        place = _platform(offer, name, template.services[name], choices.artifacts.get(name))
        if isinstance(place, Problem):
            lacking.append(place)
        else:
            platforms[name] = place
    lacking.extend(_attributes(reduced, data))
    lacking.extend(_secrets(reduced, offer))
    if lacking:
        away = _away(template, choices, offer, made_by=made_by, formats=formats)
        return [away] if away is not None else lacking
    picked = {
        name: artifact
        for name, (_, artifact) in platforms.items()
        if len(artifacts_of(template.services[name], choices.artifacts.get(name))) > 1
    }
    return Fit(
        template=effective(template, choices, picked=picked),
        brokers={
            **{name: chosen.broker.name for name, chosen in data.items()},
            **{name: broker.name for name, (broker, _) in platforms.items()},
        },
        plans={name: chosen.detail for name, chosen in data.items()},
        picked=picked,
    )


def _away(
    template: Template,
    choices: Choices,
    offer: Offer,
    *,
    made_by: Mapping[str, str] | None,
    formats: Mapping[str, str] | None,
) -> Problem | None:
    """The problem when nothing is lacking but brokers that were there a while ago: one that restarts comes back."""
    if not offer.lost:
        return None
    all_of_it = offer._replace(brokers=(*offer.brokers, *offer.lost), lost=())
    whole = fit(template, choices, all_of_it, made_by=made_by, formats=formats)
    if not isinstance(whole, Fit):
        return None
    needed = set(whole.brokers.values())
    names = ", ".join(sorted(f"{one.kind}-{one.name}" for one in offer.lost if one.name in needed))
    return temporary(
        "broker_away",
        f"site {offer.site} needs {names} for this, which does not answer now; send it again when it is back",
        retry_after_seconds=AWAY_SECONDS,
        field="site",
    )


def _app(template: Template, offer: Offer) -> Iterator[Problem]:
    wanted = template.requires.calque if template.requires else ""
    if wanted and offer.version and not satisfies(offer.version, wanted):
        yield conflict(
            "requires.calque",
            f"site {offer.site} has Calque {offer.version}; the template requires {wanted}",
            "choose another site, or upgrade that one",
        )


def _data_service(
    offer: Offer, name: str, spec: DataServiceSpec, choices: Choices, *, wanted: str | None, copy_format: str
) -> _Chosen | Problem:
    """The DSB for a data service: the one that made the copy, the one that the template names, or the first. A copy
    that one plan alone restores has that plan."""
    field = f"data_services.{name}"
    there = offer.of_kind("dsb")
    if name in choices.attach:
        return _attaching(offer, name, spec, choices.attach[name])
    choice = wanted or spec.broker
    named = [one for one in there if spec.type in one.types and choice in (None, one.name)]
    if not named:
        has = ", ".join(f"{one.name} ({', '.join(one.types)})" for one in there)
        lacking = f"{spec.type} broker {choice!r}" if choice else f"broker for type {spec.type}"
        return conflict(field, f"site {offer.site} has no {lacking}; it has: {has or 'none'}", "choose another site")
    fitting = [one for one in named if _serves(one, spec)]
    if not fitting:
        required = spec.requires
        assert required is not None
        has = ", ".join(f"{one.name} ({one.engine or '?'} {one.engine_version or '?'})" for one in named)
        words = f"{required.engine or spec.type} {required.version}".strip()
        return conflict(f"{field}.requires", f"site {offer.site} has no {words}; it has: {has}", "choose another site")
    plan = choices.plans.get(name) or spec.plan
    only = [each.name for one in fitting for each in one.plans if copy_format and copy_format in each.copy_formats]
    if only and plan not in only:
        if name in choices.plans:
            return conflict(
                f"plans.{name}",
                f"its copy is of the format {copy_format!r}, which is restored by the plan {only[0]!r} alone",
                f"choose {only[0]!r}, or no plan",
            )
        plan = only[0]
    if plan is None:
        offered = fitting[0].plans
        return _Chosen(fitting[0], offered[0].name if offered else "")
    for one in fitting:
        if any(each.name == plan for each in one.plans):
            return _Chosen(one, plan)
    names = ", ".join(each.name for each in fitting[0].plans)
    return not_found(
        f"plans.{name}" if name in choices.plans else f"{field}.plan",
        f"broker {fitting[0].name!r} at site {offer.site} has no plan {plan!r}",
        f"choose one of: {names}",
    )


def _attaching(offer: Offer, name: str, spec: DataServiceSpec, attachment: Attachment) -> _Chosen | Problem:
    """The DSB for a data service that was there before. It has no plan."""
    field = f"attach.{name}"
    there = [one for one in offer.of_kind("dsb") if spec.type in one.types]
    fitting = [one for one in there if one.can_attach and spec.broker in (None, one.name)]
    if not fitting:
        has = ", ".join(one.name for one in there) or "none"
        return conflict(
            field,
            f"site {offer.site} has no {spec.type} broker that can attach what was there before; it has: {has}",
            "choose another site",
        )
    if attachment.secret is not None and offer.secrets is not None and name_in(attachment.secret) not in offer.secrets:
        return secret_not_set(name_in(attachment.secret), site=offer.site, field=f"{field}.secret")
    return _Chosen(fitting[0], "")


def _serves(broker: BrokerRegistered, spec: DataServiceSpec) -> bool:
    required = spec.requires
    if required is None:
        return True
    if required.engine and required.engine != broker.engine:
        return False
    return not required.version or satisfies(broker.engine_version, required.version)


def _platform(
    offer: Offer, name: str, spec: ServiceSpec, override: Artifact | None
) -> tuple[BrokerRegistered, Artifact] | Problem:
    """The first artifact, in the order written, that a platform of the site can run with all its hooks."""
    field = f"services.{name}"
    there = offer.of_kind("psb")
    offered = artifacts_of(spec, override)
    why: Problem | None = None
    for artifact in offered:
        for platform in there:
            if artifact.type in platform.types:
                problem = _unfit(offer, platform, spec, field=field)
                if problem is None:
                    return platform, artifact
                why = why or problem
    if why is not None:
        return why
    has = ", ".join(f"{one.name} ({', '.join(one.types)})" for one in there)
    types = " or ".join(dict.fromkeys(artifact.type for artifact in offered))
    return conflict(
        f"{field}.artifacts" if spec.alternatives else f"{field}.artifact",
        f"site {offer.site} has no platform for {types} artifacts; it has: {has or 'none'}",
        "choose another site",
    )


def _unfit(offer: Offer, platform: BrokerRegistered, spec: ServiceSpec, *, field: str) -> Problem | None:
    wanted = spec.requires.get(platform.engine)
    if wanted and not satisfies(platform.engine_version, wanted):
        return conflict(
            f"{field}.requires.{platform.engine}",
            f"platform {platform.name!r} at site {offer.site} is {platform.engine} {platform.engine_version or '?'}; "
            f"{wanted} is required",
            "choose another site",
        )
    for kind, phase in kinds_of_hooks(spec).items():
        if kind not in platform.hooks:
            return conflict(
                f"{field}.hooks.{phase}",
                f"platform {platform.name!r} at site {offer.site} can't run this hook ({kind}); "
                f"it can: {', '.join(platform.hooks) or 'none'}",
                "choose another site, or change the hook",
            )
    return None


def _attributes(template: Template, chosen: Mapping[str, _Chosen]) -> Iterator[Problem]:
    """Whether every ``${data.attribute}`` is one that the chosen broker's bindings offer."""
    for name, service in template.services.items():
        for variable, value in service.environment.items():
            for each in references(value) if isinstance(value, str) else ():
                if each.service not in chosen:
                    continue
                broker = chosen[each.service].broker
                if each.attribute not in broker.attributes:
                    yield invalid(
                        f"services.{name}.environment.{variable}",
                        f"bindings of broker {broker.name!r} have no attribute {each.attribute!r}",
                        f"use one of: {', '.join(broker.attributes)}",
                    )


def _secrets(template: Template, offer: Offer) -> Iterable[Problem]:
    if offer.secrets is None:
        return
    for name, field in secret_names(template).items():
        if name not in offer.secrets:
            yield secret_not_set(name, site=offer.site, field=field)
