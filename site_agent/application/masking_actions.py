"""Masking in a save: its key, which lives as long as the copies are made, and what a broker is told of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from schemas.brokers import Copied
from schemas.masking import Masked, Masking, MaskingOrder, rules_digest
from schemas.problems import CalqueError, permanent
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.calls import Call, Result
from site_agent.domain import plans
from site_agent.domain.masking import key_reference


class MaskingActions:
    """The actions about an image's key, by name."""

    def __init__(self, secrets: SecretStore) -> None:
        self._secrets = secrets
        self.actions: dict[str, Callable[[Call], Awaitable[Result]]] = {
            plans.MAKE_KEY: self._make_key,
            plans.DROP_KEY: self._drop_key,
        }

    def order(self, call: Call) -> MaskingOrder | None:
        """What the broker of ``call.part`` is told to mask; ``None`` when nothing is. Raises :class:`CalqueError`."""
        rules = rules_of(call)
        if rules is None or rules.keep:
            return None
        return MaskingOrder(rules=rules, key=self._secrets.get(key_reference(call.request["image"])))

    async def _make_key(self, call: Call) -> Result:
        self._secrets.propose(key_reference(call.request["image"]))
        return {}

    async def _drop_key(self, call: Call) -> Result:
        self._secrets.remove([key_reference(call.request["image"])])
        return {}


def rules_of(call: Call) -> Masking | None:
    """The rules of ``call.part`` in a masked save."""
    rules = call.request.get("masking", {}).get(call.part)
    return msgspec.convert(rules, Masking) if rules is not None else None


def asked_of(call: Call) -> Masking | None:
    """The rules that the broker of ``call.part`` has to apply; ``None`` where it copies all as it is."""
    rules = rules_of(call)
    return None if rules is None or rules.keep else rules


def masked_by(call: Call, copied: Copied) -> Masked | None:
    """By what a copy was masked. Raises :class:`CalqueError` when it was to be and the broker does not say that it
    was, by these rules."""
    rules = rules_of(call)
    if rules is None:
        return None
    if rules.keep:
        return Masked(rules=rules_digest(rules), keep=True)
    if copied.masked is None or copied.masked.keep or copied.masked.rules != rules_digest(rules):
        raise CalqueError(
            permanent(
                "not_masked",
                "the broker does not say that it masked the copy",
                field=call.part,
                remedy="upgrade the broker, then save again",
            )
        )
    return copied.masked
