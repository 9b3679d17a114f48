"""What the messaging broker is told beyond what every broker is told."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from brokers.sdk.settings import BrokerSettings


class MessagingSettings(BrokerSettings):
    """The NATS server for apps, which is in operator mode with a full resolver that may delete.

    ``servers`` is where the broker reaches it, ``url`` what apps are told (default: the first of them).
    ``operator_seed_file`` holds the seed of the operator or of one of its signing keys, ``operator`` the public key
    of the operator itself (default: that of the seed). ``system_credentials_file`` is the ``.creds`` file of a user
    of the system account.
    """

    servers: list[str] = Field(min_length=1)
    url: str | None = None
    operator_seed_file: Path
    operator: str | None = None
    system_credentials_file: Path

    @property
    def reachable(self) -> str:
        """The URL that apps are told."""
        return self.url or self.servers[0]
