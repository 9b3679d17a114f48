"""What is asked about masking before a copy: whether rules fit a database, and what they would do to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brokers.postgres.databases import Databases
from brokers.postgres.existing import ExistingDatabase
from brokers.postgres.masking import Masker
from brokers.postgres.names import database_of
from brokers.postgres.server import Server, Session
from schemas.brokers import Existing, MaskingPreview, PreviewMasking, StageCopy


class MaskingRequests:
    """Reads databases, and writes and keeps nothing."""

    def __init__(self, masker: Masker, server: Server, databases: Databases) -> None:
        self._masker = masker
        self._server = server
        self._databases = databases

    async def check(self, request: StageCopy) -> None:
        """Raises :class:`CalqueError` for what speaks against the rules of a copy, if it has any."""
        if request.masking is not None:
            async with self._looking(request.service_id, request.existing) as session:
                await self._masker.check(session, request.masking)

    async def preview(self, request: PreviewMasking) -> MaskingPreview:
        """What the rules do to the schema and to some rows."""
        async with self._looking(request.service_id, request.existing) as session:
            return await self._masker.preview(session, request)

    @asynccontextmanager
    async def _looking(self, service_id: str, existing: Existing | None) -> AsyncIterator[Session]:
        if existing is not None:
            async with ExistingDatabase(existing).session() as session:
                yield session
            return
        async with self._server.session(database=database_of(service_id)) as session:
            await self._databases.require(session, service_id)
            yield session
