"""Opens what a site sealed for this client: the secrets of a binding, readable to nobody on the way."""

from __future__ import annotations

import json
from typing import NamedTuple

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from hub.client.errors import RefusedError
from schemas.problems import permanent
from schemas.queries import BindingView
from schemas.secrets import Sealed, Secret


class OpenedBinding(NamedTuple):
    """A binding with its secrets; their ``repr`` does not show them."""

    attributes: dict[str, str]
    secrets: dict[str, Secret]


class OneTimeKey:
    """An X25519 key pair for one question."""

    def __init__(self) -> None:
        self._private = PrivateKey.generate()

    @property
    def public(self) -> str:
        """The public half, hexadecimal."""
        return bytes(self._private.public_key).hex()

    def open(self, view: BindingView) -> OpenedBinding:
        """The binding in the clear; raises :class:`RefusedError` when the box is not for this key, or damaged."""
        content = json.loads(self.unseal(view.secrets))
        secrets = {str(name): Secret(value=str(value)) for name, value in content.items()}
        return OpenedBinding(attributes=view.attributes, secrets=secrets)

    def unseal(self, sealed: Sealed) -> bytes:
        """What was sealed to this key; raises :class:`RefusedError` when it was not, or is damaged."""
        try:
            return SealedBox(self._private).decrypt(sealed.box)
        except (CryptoError, ValueError):
            problem = permanent("unreadable", "the sealed secrets can't be opened", field="secrets", remedy="ask again")
            raise RefusedError(problem) from None
