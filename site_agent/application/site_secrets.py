"""The secrets that people gave to this site: taken in sealed, kept in the site's store, resolved for who needs them."""

from __future__ import annotations

import asyncio

import msgspec

from schemas import site_secrets as contract
from schemas.names import check_name
from schemas.problems import CalqueError, invalid
from schemas.secrets import Secret
from site_agent.adapters.journal import Journal
from site_agent.adapters.sealing import SealKey
from site_agent.adapters.secret_store import PREFIX, SecretStore
from site_agent.domain import secrets


class SiteSecrets:
    """Sets, removes and resolves them. A value is durable in the store before its event says so."""

    def __init__(self, journal: Journal, *, store: SecretStore, key: SealKey) -> None:
        self._journal = journal
        self._store = store
        self._key = key
        self._lock = asyncio.Lock()

    async def set(self, request: contract.SiteSetSecret) -> contract.SecretChanged:
        """Keep a value. Raises :class:`CalqueError` for a box that is not for this site and name, or a bad value."""
        if problem := check_name(request.name, field="name"):
            raise CalqueError(problem)
        value = self._opened(request)
        async with self._lock:
            if request.id not in self._journal.site.handled:
                self._store.put(_place(request.name), value)
                await self._journal.record(
                    lambda site: secrets.set_secret(site, request.name, by=request.by, id=request.id),
                    causation=request.id,
                    need="spare",
                )
        return self._changed(request.name)

    async def remove(self, request: contract.SiteRemoveSecret) -> contract.SecretChanged:
        """Forget a value. Raises ``not_found``, or ``conflict`` while an app needs it."""
        async with self._lock:
            if request.id not in self._journal.site.handled:
                if problem := secrets.why_not_removed(self._journal.site, request.name):
                    raise CalqueError(problem)
                await self._journal.record(
                    lambda site: secrets.remove_secret(site, request.name, by=request.by, id=request.id),
                    causation=request.id,
                    need="spare",
                )
            known = self._journal.site.secrets.get(request.name)
            if known is not None and not known.there:  # also when the agent died between the event and this
                self._store.remove([_place(request.name)])
        return self._changed(request.name)

    def resolve(self, reference: str, *, field: str) -> Secret:
        """The value behind ``secret:<name>``. Raises :class:`CalqueError`: ``secret_not_set`` says how to set it."""
        if problem := contract.check_reference(reference, field=field):
            raise CalqueError(problem)
        name = contract.name_in(reference)
        if problem := secrets.missing(self._journal.site, reference, field=field):
            raise CalqueError(problem)
        return self._store.get(_place(name))

    def _opened(self, request: contract.SiteSetSecret) -> Secret:
        try:
            content = msgspec.json.decode(self._key.open(request.sealed), type=contract.SecretContent)
        except msgspec.DecodeError:
            raise CalqueError(invalid("sealed", "what is sealed is no SecretContent")) from None
        if (content.site, content.name) != (self._journal.site.name, request.name):
            raise CalqueError(invalid("sealed", f"what is sealed is not meant for the secret {request.name!r} here"))
        size = len(content.value.value.encode())
        if not 0 < size <= contract.MOST_BYTES:
            raise CalqueError(invalid("value", f"it has {size} bytes", f"use 1 to {contract.MOST_BYTES} bytes"))
        return content.value

    def _changed(self, name: str) -> contract.SecretChanged:
        site = self._journal.site
        return contract.SecretChanged(site=site.name, name=name, version=site.secrets[name].version)


def _place(name: str) -> str:
    """Where the store keeps it: beside the secrets of bindings, whose references begin with an instance's id."""
    return f"{PREFIX}site/{name}"
