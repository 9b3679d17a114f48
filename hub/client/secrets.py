"""The secrets of sites: sealed here to the site's key, so that nobody on the way can read them."""

from __future__ import annotations

import msgspec
from nacl.exceptions import CryptoError
from nacl.public import PublicKey, SealedBox

from hub.client.errors import InvalidError, RefusedError
from schemas.problems import invalid, temporary
from schemas.queries import SiteView
from schemas.secrets import Sealed, Secret
from schemas.site_secrets import MOST_BYTES, SecretContent


def sealed_for(site: SiteView, *, name: str, value: Secret) -> Sealed:
    """``value`` for ``site`` alone. Raises :class:`InvalidError`, or :class:`RefusedError` (temporary) when the site
    has not said its key yet."""
    size = len(value.value.encode())
    if not 0 < size <= MOST_BYTES:
        raise InvalidError(invalid("value", f"it has {size} bytes", f"give 1 to {MOST_BYTES} bytes"))
    if not site.seal_key:
        raise RefusedError(temporary("not_announced", f"site {site.name} has not told its key yet", field="site"))
    content = msgspec.json.encode(SecretContent(site=site.name, name=name, value=value))
    try:
        key = PublicKey(bytes.fromhex(site.seal_key))
    except (ValueError, CryptoError):
        raise InvalidError(invalid("site", f"the key of site {site.name} is damaged")) from None
    return Sealed(recipient=site.seal_key, box=SealedBox(key).encrypt(content))
