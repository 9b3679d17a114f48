"""Webhooks as a client works with them: :attr:`hub.client.Client.webhooks`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, SealedBox

from hub.client.errors import InvalidError, NotFoundError, RefusedError
from hub.client.started import Started
from schemas import commands, queries
from schemas.commands import Command
from schemas.problems import not_found, permanent
from schemas.secrets import Secret
from schemas.webhooks import (
    DeadLetter,
    DeliveryView,
    DiscardDeadLetters,
    DiscardedView,
    RetriedView,
    RetryDeadLetters,
    RevealWebhookSecret,
    SendTestEvent,
    StartAt,
    WebhookDeadQuery,
    WebhookDeadView,
    WebhookDeliveriesQuery,
    WebhookDeliveriesView,
    WebhookSecretView,
    WebhookSpec,
    WebhooksQuery,
    WebhookStatus,
    WebhookStatusQuery,
    WebhookStatusView,
    WebhooksView,
    WebhookTestView,
    WebhookView,
    check_webhook,
)

T = TypeVar("T", bound=queries.View)


class Sends(Protocol):
    """Sends a command."""

    async def __call__(self, data: Command, *, target: str, command: str | None) -> Started: ...


class Asks(Protocol):
    """Asks a query, or has something done that is not stored."""

    async def __call__(self, what: str, question: queries.Query, reply: type[T], /) -> T: ...


class WebhookClient:
    """Every method raises subclasses of :class:`hub.client.errors.ClientError`."""

    def __init__(self, *, send: Sends, ask: Asks, act: Asks) -> None:
        self._send = send
        self._ask = ask
        self._act = act

    async def add(
        self, name: str, spec: WebhookSpec, *, start: StartAt | None = None, command: str | None = None
    ) -> Started:
        """Have events sent on from now on, or from ``start``. The same webhook again is no change."""
        for problem in check_webhook(name, spec):
            raise InvalidError(problem)
        return await self._send(commands.AddWebhook(spec=spec, start=start), target=name, command=command)

    async def remove(self, name: str, *, command: str | None = None) -> Started:
        """Send nothing more; dead letters go too."""
        return await self._send(commands.RemoveWebhook(), target=name, command=command)

    async def pause(self, name: str, *, reason: str = "", command: str | None = None) -> Started:
        """Send nothing for now; events wait."""
        return await self._send(commands.PauseWebhook(reason=reason), target=name, command=command)

    async def resume(self, name: str, *, command: str | None = None) -> Started:
        """Go on where it was paused."""
        return await self._send(commands.ResumeWebhook(), target=name, command=command)

    async def replay(self, name: str, *, start: StartAt, command: str | None = None) -> Started:
        """Send all from ``start`` on once more."""
        return await self._send(commands.ReplayWebhook(start=start), target=name, command=command)

    async def rotate(self, name: str, *, command: str | None = None) -> Started:
        """Make a new secret; for a day deliveries are signed with the old one too."""
        return await self._send(commands.RotateWebhook(), target=name, command=command)

    async def list(self, name: str | None = None) -> tuple[WebhookView, ...]:
        """Webhooks as they are defined."""
        return (await self._ask("webhooks", WebhooksQuery(name=name), WebhooksView)).webhooks

    async def get(self, name: str) -> WebhookView:
        """One webhook."""
        found = await self.list(name)
        if not found:
            raise NotFoundError(not_found("webhook", f"there is no webhook {name!r}", "see 'calque webhook list'"))
        return found[0]

    async def status(self, name: str | None = None) -> tuple[WebhookStatus, ...]:
        """How far deliveries are, as the process that makes them says."""
        return (await self._ask("webhook_status", WebhookStatusQuery(name=name), WebhookStatusView)).webhooks

    async def deliveries(self, name: str, *, limit: int = 20) -> tuple[DeliveryView, ...]:
        """The last attempts, newest last."""
        question = WebhookDeliveriesQuery(name=name, limit=limit)
        return (await self._ask("webhook_deliveries", question, WebhookDeliveriesView)).deliveries

    async def dead(self, name: str | None = None, *, limit: int = 1000) -> tuple[DeadLetter, ...]:
        """Dead letters, oldest first."""
        return (await self._ask("webhook_dead", WebhookDeadQuery(name=name, limit=limit), WebhookDeadView)).letters

    async def secret(self, name: str) -> Secret:
        """The secret that signs its deliveries, sealed on the way to a one-time key."""
        key = PrivateKey.generate()
        question = RevealWebhookSecret(name=name, public_key=bytes(key.public_key).hex())
        answer = await self._act("webhook_secret", question, WebhookSecretView)
        try:
            return Secret(value=SealedBox(key).decrypt(answer.secret.box).decode())
        except (CryptoError, ValueError):
            raise RefusedError(
                permanent("unreadable", "the sealed secret can't be opened", field="secret", remedy="ask again")
            ) from None

    async def test(self, name: str) -> DeliveryView:
        """Send a made-up event now, once."""
        return (await self._act("webhook_test", SendTestEvent(name=name), WebhookTestView)).delivery

    async def retry(self, name: str, *, sequences: Sequence[int] = ()) -> RetriedView:
        """Try dead letters once more, now; it ends at the first that fails again."""
        return await self._act("webhook_retry", RetryDeadLetters(name=name, sequences=tuple(sequences)), RetriedView)

    async def discard(self, name: str, *, sequences: Sequence[int] = ()) -> int:
        """Throw dead letters away; how many."""
        question = DiscardDeadLetters(name=name, sequences=tuple(sequences))
        return (await self._act("webhook_discard", question, DiscardedView)).discarded
