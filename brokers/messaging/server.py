"""The NATS server for apps, as its system account is asked: make, read, list and delete accounts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from brokers.messaging.accounts import Account, Label, read, signed
from brokers.messaging.settings import MessagingSettings
from brokers.sdk.errors import permanent_error, read_value, temporary_error
from bus.connection import Bus, BusSettings
from bus.tokens import TokenKey, token
from schemas.unreadable import UNREADABLE

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0
CONNECT_SECONDS = 3.0
LOOKUPS_AT_ONCE = 16


class AppServer:
    """Connects when it is first asked, and stays connected."""

    def __init__(self, settings: MessagingSettings) -> None:
        self._settings = settings
        self._bus: Bus | None = None
        self._connecting = asyncio.Lock()

    @property
    def operator(self) -> TokenKey:
        """The key that signs accounts. Raises a problem when its file can't be used."""
        path: Path = self._settings.operator_seed_file
        try:
            return TokenKey(read_value(path, field="operator_seed_file"))
        except ValueError as error:
            raise permanent_error("settings", f"{path}: {error}", field="operator_seed_file") from None

    async def close(self) -> None:
        """Disconnect."""
        if self._bus is not None:
            await self._bus.close()

    async def ping(self) -> None:
        """Raise unless the server answers as the operator's."""
        await self._accounts()

    async def account(self, public: str) -> Account | None:
        """One account of ours, ``None`` when it is not there."""
        text = await self._ask(f"$SYS.REQ.ACCOUNT.{public}.CLAIMS.LOOKUP", b"")
        return read(text.decode()) if text else None

    async def all(self) -> list[Account]:
        """All accounts of ours."""
        few = asyncio.Semaphore(LOOKUPS_AT_ONCE)

        async def one(public: str) -> Account | None:
            async with few:
                return await self.account(public)

        found = await asyncio.gather(*(one(public) for public in await self._accounts()))
        return [account for account in found if account is not None]

    async def put(self, label: Label, scopes: dict[str, dict[str, Any]]) -> None:
        """Make the account, or change it: who lost its binding is disconnected."""
        text = signed(self.operator, label, scopes)
        self._expect(await self._ask("$SYS.REQ.CLAIMS.UPDATE", text.encode()), doing="keeping an account")

    async def delete(self, public: str) -> None:
        """Remove the account and disconnect all of its users. Unknown is done."""
        operator = self.operator
        request = token(
            operator,
            subject=self._settings.operator or operator.public,
            name="delete",
            kind="generic",
            claims={"accounts": [public]},
            issued_at=int(time.time()),
        )
        self._expect(await self._ask("$SYS.REQ.CLAIMS.DELETE", request.encode()), doing="removing an account")

    async def _accounts(self) -> list[str]:
        answer = self._expect(await self._ask("$SYS.REQ.CLAIMS.LIST", b""), doing="listing accounts")
        return [str(each) for each in answer.get("data") or ()]

    async def _ask(self, subject: str, payload: bytes) -> bytes:
        bus = await self._connected()
        return (await bus.call(subject, payload, timeout_seconds=ANSWER_SECONDS)).payload

    async def _connected(self) -> Bus:
        async with self._connecting:
            if self._bus is None:
                settings = BusSettings(
                    servers=list(self._settings.servers),
                    credentials_file=str(self._settings.system_credentials_file),
                    name=f"calque {self._settings.site} {self._settings.name}",
                )
                self._bus = await Bus.connect(settings, deadline_seconds=CONNECT_SECONDS)
            return self._bus

    def _expect(self, payload: bytes, *, doing: str) -> Mapping[str, Any]:
        try:
            answer = msgspec.json.decode(payload, type=dict[str, Any])
        except UNREADABLE:
            raise temporary_error("unavailable", f"{doing}: the server's answer can't be read") from None
        if error := answer.get("error"):
            said = str(error.get("description", error)) if isinstance(error, dict) else str(error)
            raise permanent_error(
                "refused",
                f"{doing}: the server refused: {said[:300]}",
                remedy="the server must be in operator mode with a full resolver, allow_delete, and this operator",
            )
        return answer
