"""Makes the grants that brokers and peers work with: where the repository answers, a token, the certificate to
expect."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from brokers.repository.manifest import check_name
from brokers.repository.tokens import Claims, Purpose, TokenKey
from brokers.sdk.copystream_tls import file_fingerprint
from schemas.brokers import CopyGrant
from schemas.secrets import Secret

READ_SECONDS = 900.0
WRITE_SECONDS = 3600.0


class Grants:
    """Issues grants for one endpoint. `base_url` is `https://<host>:<port>`; the clock gives Unix seconds."""

    def __init__(
        self,
        *,
        base_url: str,
        tokens: TokenKey,
        certificate: Path,
        ca: Path,
        clock: Callable[[], float],
        near: str = "",
    ) -> None:
        """`near`: under which name brokers on this machine reach the endpoint."""
        self._near = near
        self._base_url = base_url
        self._tokens = tokens
        self._clock = clock
        self._ca = ca.read_text()
        self.fingerprint = file_fingerprint(certificate)

    def issue(
        self,
        copy: str,
        purpose: Purpose,
        *,
        seconds: float,
        client_fingerprint: str | None = None,
        parent: str = "",
    ) -> CopyGrant:
        """A grant for one copy. With a fingerprint, only who shows that client certificate can use it. With a
        `parent`, who writes may refer to entries of that copy."""
        check_name(copy, what="copy id")
        expires = self._clock() + seconds
        token = self._tokens.issue(Claims(copy, purpose, expires, client_fingerprint, parent))
        return CopyGrant(
            copy=copy,
            purpose=purpose,
            url=f"{self._base_url}/v0/copies/{copy}",
            token=Secret(value=token),
            fingerprint=self.fingerprint,
            ca=self._ca,
            expires_at=datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds"),
            client_fingerprint=client_fingerprint,
            parent=parent,
            # A client certificate can't be shown there.
            near=self._near if client_fingerprint is None else "",
        )
