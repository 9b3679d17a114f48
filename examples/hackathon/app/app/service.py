"""What the application does with ideas: the order of facts between PostgreSQL and the bucket.

A document is stored first, then the row that names it; on removal the row goes first. So at every moment
each row has its document, whatever crashes, and a write is acknowledged only when both are durable. What
a crash can leave behind is a document that no row names, which harms nobody.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Sequence

from .documents import PREFIX, DocumentMissingError, DocumentStore
from .gate import WriteGate
from .ideas import Idea, NewIdea
from .store import IdeaStore
from .thumbs import Thumbs, drawn

_UPLOADS_AT_ONCE = 16


class ConflictError(Exception):
    """The writer has used this seq for an idea with another content."""


class Ideas:
    """All writes pass the gate; reads go to the stores directly."""

    def __init__(
        self, *, store: IdeaStore, documents: DocumentStore, gate: WriteGate, thumbs: Thumbs | None = None
    ) -> None:
        self.store = store
        self.documents = documents
        self.gate = gate
        self.thumbs = thumbs
        self._uploads = asyncio.Semaphore(_UPLOADS_AT_ONCE)

    async def add(self, new: Sequence[NewIdea]) -> tuple[list[Idea], int]:
        """Store ideas, all or none; what is stored now, and how many of it were stored before.

        Raises:
            ConflictError: a writer and seq are taken by another content; the ideas beside it are stored.
        """
        async with self.gate.write():
            made = [_made(idea) for idea in new]
            await self._upload_all([(idea.doc_key, source.document) for idea, source in zip(made, new, strict=True)])
            stored = await self.store.add(made)
            repeated = [mine for mine, kept in zip(made, stored, strict=True) if mine.id != kept.id]
            for idea in repeated:
                await self.documents.delete(idea.doc_key)
            for mine, kept in zip(made, stored, strict=True):
                if not mine.same_content(kept):
                    raise ConflictError(f"writer {kept.writer} has used seq {kept.seq} for another idea")
            if self.thumbs is not None:
                # for repeated ones too: what stopped them the first time may have been before this
                contents = [(kept, source.document) for kept, source in zip(stored, new, strict=True)]
                await asyncio.to_thread(self.thumbs.keep, contents)
            return stored, len(repeated)

    async def document(self, idea_id: str) -> tuple[Idea, bytes] | None:
        """An idea and its document; ``None`` when there is no such idea.

        Raises:
            DocumentMissingError: the idea is there and its document is not.
        """
        idea = await self.store.get(idea_id)
        if idea is None:
            return None
        try:
            return idea, await self.documents.get(idea.doc_key)
        except DocumentMissingError:
            # It may have been removed between the two reads; only a row that still stands is a fault.
            if await self.store.get(idea_id) is None:
                return None
            raise

    async def thumbnail(self, idea_id: str) -> bytes | None:
        """A picture of an idea's document, from the cache where there is one; ``None`` when there is no such idea.

        Raises:
            DocumentMissingError: the idea is there and its document is not.
        """
        if self.thumbs is not None and (kept := await asyncio.to_thread(self.thumbs.find, idea_id)) is not None:
            return kept
        found = await self.document(idea_id)
        if found is None:
            return None
        # Nothing is written here: a read must not change what is being copied.
        return drawn(*found)

    async def vote(self, idea_id: str, *, count: int) -> int | None:
        """Add votes; the new total, or ``None`` when there is no such idea."""
        async with self.gate.write():
            return await self.store.vote(idea_id, count=count)

    async def remove(self, idea_id: str) -> bool:
        """Remove an idea and its document; whether it was there."""
        async with self.gate.write():
            key = await self.store.remove(idea_id)
            if key is None:
                return False
            if self.thumbs is not None:
                await asyncio.to_thread(self.thumbs.remove, idea_id)
            await self.documents.delete(key)
            return True

    async def _upload_all(self, documents: Sequence[tuple[str, bytes]]) -> None:
        try:
            async with asyncio.TaskGroup() as uploads:
                for key, content in documents:
                    uploads.create_task(self._upload(key, content))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _upload(self, key: str, content: bytes) -> None:
        async with self._uploads:
            await self.documents.put(key, content)


def _made(new: NewIdea) -> Idea:
    idea_id = str(uuid.uuid4())
    return Idea(
        id=idea_id,
        title=new.title,
        text=new.text,
        author=new.author,
        votes=0,
        doc_key=f"{PREFIX}{idea_id}",
        doc_digest=hashlib.sha256(new.document).hexdigest(),
        doc_size=len(new.document),
        writer=new.writer,
        seq=new.seq,
    )
