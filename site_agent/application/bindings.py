"""Bindings: credentials that brokers make, kept in the secret store and told by their references.

A data service has one binding, which all app services share; only on a messaging data service each app service has
credentials of its own, for what its channel declares. Those stand in the same binding, each attribute under
``<app service>.<attribute>``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from schemas import brokers as wire
from schemas.problems import CalqueError, permanent, temporary
from schemas.secrets import Secret
from schemas.values import Binding, Channel
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.secret_store import SecretStore, reference
from site_agent.application.existing import existing_of
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain.instance import DataService, Instance
from site_agent.domain.site import Site


class _Share(NamedTuple):
    """One set of credentials of a binding. ``prefix`` stands before the names of its attributes."""

    binding_id: str
    prefix: str = ""
    app_service: str = ""
    channel: Channel | None = None


class Bindings:
    """Makes, looks up and removes the bindings of one site."""

    def __init__(self, site: Callable[[], Site], *, brokers: Brokers, secrets: SecretStore, given: SiteSecrets) -> None:
        self._site = site
        self._brokers = brokers
        self._secrets = secrets
        self._given = given

    async def bind(self, instance: Instance, part: str, *, id: str, operation: str) -> dict[str, Any]:
        """Have the broker make the credentials; what is stored of them, without secrets."""
        service = instance.data_services[part]
        service_id = instance.service_id(part)
        attributes: dict[str, str] = {}
        references: dict[str, str] = {}
        for share in _shares(instance, part):
            proposed = self._secrets.propose(reference(instance.id, part, f"{share.prefix}proposed"))
            request = wire.Bind(
                id=_own(id, share),
                operation=operation,
                service_id=service_id,
                binding_id=share.binding_id,
                secret=proposed,
                app_service=share.app_service,
                channel=share.channel,
                existing=existing_of(service, secrets=self._given),
            )
            bound = await self._brokers.call("dsb", service.broker, "bind", request, wire.Bound, on=operation)
            attributes |= {f"{share.prefix}{name}": value for name, value in bound.attributes.items()}
            for name, secret in bound.secrets.items():
                references[f"{share.prefix}{name}"] = reference(instance.id, part, f"{share.prefix}{name}")
                self._secrets.put(references[f"{share.prefix}{name}"], secret)
        binding = Binding(id=f"{service_id}-binding", data_service=part, attributes=attributes, secret_refs=references)
        return {"binding": msgspec.to_builtins(binding)}

    async def unbind(self, instance: Instance, part: str, *, id: str, operation: str) -> None:
        """Have the broker remove the credentials, and forget them. Those of an attached service are the user's."""
        service = instance.data_services[part]
        for share in _shares(instance, part) if service.attached is None else ():
            request = wire.Unbind(
                id=_own(id, share),
                operation=operation,
                service_id=instance.service_id(part),
                binding_id=share.binding_id,
            )
            await self._brokers.call("dsb", service.broker, "unbind", request, wire.Done, on=operation)
        self._secrets.remove(self._references(instance, part))

    def attribute(self, instance: Instance, *, user: str, part: str, attribute: str, field: str) -> str | Secret:
        """What ``${part.attribute}`` stands for in the environment of the app service ``user``."""
        service: DataService = instance.data_services[part]
        if service.binding is not None:
            for name in (f"{user}.{attribute}", attribute):
                if name in service.binding.attributes:
                    return service.binding.attributes[name]
                if name in service.binding.secret_refs:
                    return self._secrets.get(service.binding.secret_refs[name])
        raise CalqueError(
            permanent(
                "attribute_missing",
                f"the binding of {part!r} has no attribute {attribute!r}",
                field=field,
                remedy="see which attributes the broker offers: calque broker list",
            )
        )

    def _references(self, instance: Instance, part: str) -> list[str]:
        """What the store may hold of a binding, also when it was made and the agent died before that was recorded."""
        service = instance.data_services[part]
        registered = self._site().brokers.get(f"dsb-{service.broker}")
        if registered is None and service.binding is None and service.attached is None:
            # It answered just now, so it is found again soon: only then it is known under which names secrets may lie.
            message = f"data service broker {service.broker!r} is not registered again yet"
            raise CalqueError(temporary("broker_away", message))
        names = {"proposed", *(registered.attributes if registered else ())}
        recorded = service.binding.secret_refs.values() if service.binding else ()
        prefixes = {share.prefix for share in _shares(instance, part)}
        possible = (reference(instance.id, part, f"{prefix}{name}") for prefix in prefixes for name in names)
        return sorted({*recorded, *possible})


def _shares(instance: Instance, part: str) -> tuple[_Share, ...]:
    binding_id = f"{instance.service_id(part)}-binding"
    if instance.data_services[part].spec.type != "messaging":
        return (_Share(binding_id),)
    return tuple(
        _Share(f"{binding_id}-{name}", prefix=f"{name}.", app_service=name, channel=spec.channels[part])
        for name, spec in instance.template.services.items()
        if part in spec.channels
    )


def _own(id: str, share: _Share) -> str:
    """The effect's id, which has one share of a binding each."""
    return f"{id}/{share.app_service}" if share.app_service else id
