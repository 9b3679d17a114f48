"""What clients may ask the process and have it do: how deliveries are, secrets, tests, dead letters."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from bus.connection import Bus
from bus.kept import Durables
from bus.service import Service
from hub.webhooks.ledger import Ledger, Letter
from hub.webhooks.registry import Definition, Registry
from hub.webhooks.sending import Result
from hub.webhooks.signing import Secrets, seal
from hub.webhooks.worker import view
from schemas.brokers import SERVICE_VERSION
from schemas.envelope import Envelope, encode, timestamp, wrap
from schemas.ids import new_id
from schemas.problems import CalqueError, invalid, not_found
from schemas.queries import WEBHOOK_ACTS, WEBHOOK_QUERIES
from schemas.subjects import HUB, SubjectError, acts, principal_of, query
from schemas.values import Requester
from schemas.webhooks import (
    DiscardDeadLetters,
    DiscardedView,
    RetriedView,
    RetryDeadLetters,
    RevealWebhookSecret,
    SendTestEvent,
    WebhookDeadQuery,
    WebhookDeadView,
    WebhookDeliveriesQuery,
    WebhookDeliveriesView,
    WebhookSecretView,
    WebhookStatus,
    WebhookStatusQuery,
    WebhookStatusView,
    WebhookTested,
    WebhookTestView,
)

MOST_SHOWN = 1000
MOST_RETRIED = 100


class Sends(Protocol):
    """Sends one body to a webhook's receiver, now."""

    async def __call__(self, definition: Definition, *, id: str, body: bytes) -> Result: ...


class Answers:
    """One method per question. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(
        self, registry: Registry, *, ledger: Ledger, durables: Durables, secrets: Secrets, send: Sends
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._durables = durables
        self._secrets = secrets
        self._send = send

    def service(self, bus: Bus) -> Service:
        """The service, ready to be started."""
        made = Service(
            bus,
            name="calque-webhooks",
            version=SERVICE_VERSION,
            description="Sends events on as webhooks",
            source=HUB,
        )
        for what, contract in WEBHOOK_QUERIES.items():
            made.endpoint(what, query(what), contract.query, contract.reply, getattr(self, what))
        for what, contract in WEBHOOK_ACTS.items():
            made.addressed(what, acts(what), contract.query, contract.reply, getattr(self, what))
        return made

    async def webhook_status(self, request: WebhookStatusQuery, _envelope: Envelope) -> WebhookStatusView:
        """``webhook_status``"""
        names = sorted(self._registry.definitions) if request.name is None else [(await self._find(request.name)).name]
        return WebhookStatusView(webhooks=tuple([await self._status(name) for name in names]))

    async def webhook_deliveries(self, request: WebhookDeliveriesQuery, _envelope: Envelope) -> WebhookDeliveriesView:
        """``webhook_deliveries``"""
        limit = _limit(request.limit, most=MOST_SHOWN)
        found = await self._find(request.name)
        return WebhookDeliveriesView(deliveries=tuple(await self._ledger.attempts(found.place, limit=limit)))

    async def webhook_dead(self, request: WebhookDeadQuery, _envelope: Envelope) -> WebhookDeadView:
        """``webhook_dead``"""
        limit = _limit(request.limit, most=MOST_SHOWN)
        every = self._registry.definitions
        found = [every[name] for name in sorted(every)] if request.name is None else [await self._find(request.name)]
        letters = [letter.view for each in found for letter in await self._letters(each, limit=limit)]
        letters.sort(key=lambda letter: letter.at)
        return WebhookDeadView(letters=tuple(letters[:limit]))

    async def webhook_secret(
        self, request: RevealWebhookSecret, _envelope: Envelope, _subject: str
    ) -> WebhookSecretView:
        """``webhook_secret``"""
        found = await self._find(request.name)
        secret = self._secrets.of(found.name, key=found.webhook.key, version=found.webhook.secret)
        return WebhookSecretView(secret=seal(secret, public_key=request.public_key))

    async def webhook_test(self, request: SendTestEvent, _envelope: Envelope, subject: str) -> WebhookTestView:
        """``webhook_test``"""
        found = await self._find(request.name)
        id = new_id()
        event = wrap(
            WebhookTested(webhook=found.name, by=_requester(subject)),
            id=id,
            source=HUB,
            time=timestamp(datetime.now(UTC)),
        )
        result = await self._send(found, id=id, body=encode(event))
        return WebhookTestView(
            delivery=view(
                found.name,
                event=id,
                type=event.type,
                sequence=0,
                attempt=1,
                result=result,
                outcome="delivered" if result.delivered else "failed",
            )
        )

    async def webhook_retry(self, request: RetryDeadLetters, _envelope: Envelope, _subject: str) -> RetriedView:
        """``webhook_retry``"""
        found = await self._find(request.name)
        limit = _limit(request.limit, most=MOST_RETRIED)
        deliveries = []
        for letter in await self._letters(found, sequences=request.sequences, limit=limit):
            result = await self._send(found, id=letter.view.event, body=letter.body)
            delivery = view(
                found.name,
                event=letter.view.event,
                type=letter.view.type,
                sequence=letter.view.sequence,
                attempt=letter.view.attempts + 1,
                result=result,
                outcome="delivered" if result.delivered else "dead",
            )
            if result.delivered:
                await self._ledger.take_away(letter)
            await self._ledger.note(found.place, delivery)
            deliveries.append(delivery)
            if not result.delivered:
                break  # one that fails says enough: the rest is left for another time
        return RetriedView(deliveries=tuple(deliveries), left=await self._ledger.dead(found.place))

    async def webhook_discard(self, request: DiscardDeadLetters, _envelope: Envelope, _subject: str) -> DiscardedView:
        """``webhook_discard``"""
        found = await self._find(request.name)
        letters = await self._letters(found, sequences=request.sequences)
        for letter in letters:
            await self._ledger.take_away(letter)
        return DiscardedView(discarded=len(letters))

    async def _find(self, name: str) -> Definition:
        if name not in self._registry.definitions:
            await self._registry.load()  # it may have been added just now
        found = self._registry.definitions.get(name)
        if found is None:
            known = ", ".join(sorted(self._registry.definitions))
            raise CalqueError(
                not_found("webhook", f"there is no webhook {name!r}", f"use one of: {known}" if known else None)
            )
        return found

    async def _status(self, name: str) -> WebhookStatus:
        definition = self._registry.definitions[name]
        info = await self._durables.info(definition.consumer) or {}
        last = await self._ledger.attempts(definition.place, limit=1)
        return WebhookStatus(
            name=name,
            waiting=int(info.get("num_pending", 0)),
            retrying=int(info.get("num_ack_pending", 0)),
            dead=await self._ledger.dead(definition.place),
            last=last[0] if last else None,
        )

    async def _letters(
        self, definition: Definition, *, sequences: tuple[int, ...] = (), limit: int | None = None
    ) -> list[Letter]:
        found: list[Letter] = []
        async with aclosing(self._ledger.letters(definition.place)) as letters:
            async for letter in letters:
                if not sequences or letter.view.sequence in sequences:
                    found.append(letter)
                if limit is not None and len(found) >= limit:
                    break
        missing = set(sequences) - {letter.view.sequence for letter in found}
        if missing and (limit is None or len(found) < limit):
            shown = ", ".join(str(each) for each in sorted(missing))
            raise CalqueError(
                not_found(
                    "sequences",
                    f"webhook {definition.name} has no dead letter {shown}",
                    "see: calque webhook dead list",
                )
            )
        return found


def _limit(wanted: int, *, most: int) -> int:
    if wanted < 1:
        raise CalqueError(invalid("limit", f"{wanted} is no number of things", f"use 1 to {most}"))
    return min(wanted, most)


def _requester(subject: str) -> Requester:
    try:
        return Requester(principal=principal_of(subject))
    except SubjectError as error:
        raise CalqueError(invalid("subject", str(error))) from None
