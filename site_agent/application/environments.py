"""The environments of app services: values from all layers, with bindings, addresses and secrets in their places."""

from __future__ import annotations

from typing import NamedTuple

from schemas import brokers as wire
from schemas.configuration import named
from schemas.problems import CalqueError, conflict
from schemas.references import Reference, resolve
from schemas.secrets import Secret
from schemas.site_secrets import secret_reference
from site_agent.application.bindings import Bindings
from site_agent.application.calls import Call
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain.instance import Instance


class Resolved(NamedTuple):
    """Plain variables, and those that hold a secret."""

    plain: dict[str, str]
    secret: dict[str, Secret]


class Environments:
    """Resolves what templates and deployments say."""

    def __init__(self, bindings: Bindings, given: SiteSecrets) -> None:
        self._bindings = bindings
        self._given = given

    def resolved(self, instance: Instance, service: str, *, alone: bool = False) -> Resolved:
        """The environment of an app service; raises :class:`CalqueError`.

        ``alone``: no app service runs yet, so variables that refer to one are left out.
        """
        found = Resolved({}, {})
        for variable, value in instance.configured(service).items():
            field = f"services.{service}.environment.{variable}"
            if not isinstance(value, str):
                found.secret[variable] = self._given.resolve(secret_reference(value.name), field=field)
            elif not (alone and named(value) & instance.services.keys()):
                text, holds_secret = self._text(instance, service, value, field=field)
                if holds_secret:
                    found.secret[variable] = Secret(value=text)
                else:
                    found.plain[variable] = text
        return found

    def _text(self, instance: Instance, service: str, value: str, *, field: str) -> tuple[str, bool]:
        secrets = 0

        def lookup(each: Reference) -> str:
            nonlocal secrets
            attribute = self._attribute(instance, each, user=service, field=field)
            if isinstance(attribute, Secret):
                secrets += 1
                return attribute.value
            return attribute

        text = resolve(value, lookup)
        return text, secrets > 0

    def _attribute(self, instance: Instance, each: Reference, *, user: str, field: str) -> str | Secret:
        if each.service in instance.services:
            service = instance.services[each.service]
            known = {"host": service.host, "port": service.port, "url": service.url}
            value = known.get(each.attribute)
            if value is None:
                raise CalqueError(
                    conflict(field, f"app service {each.service!r} has no {each.attribute}", "give it a port")
                )
            return str(value)
        return self._bindings.attribute(instance, user=user, part=each.service, attribute=each.attribute, field=field)


def deployment(call: Call, instance: Instance, resolved: Resolved, *, site: str) -> wire.DeployService:
    """How the app service that ``call`` is about is deployed."""
    return wire.DeployService(
        id=call.id,
        operation=call.operation.id,
        instance=instance.id,
        service=call.part,
        spec=instance.services[call.part].spec,
        environment=resolved.plain,
        secret_environment=resolved.secret,
        labels=labels(instance, site, service=call.part),
    )


def labels(instance: Instance, site: str, **more: str) -> dict[str, str]:
    """What marks a thing as ours."""
    return {"site": site, "instance": instance.id, "instance_name": instance.name, **more}
