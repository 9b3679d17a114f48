"""Reads one framed answer of a copy repository as events."""

from collections.abc import AsyncIterator

from brokers.sdk.copystream_http import CopyStreamError, broken, connection, damaged, request
from brokers.sdk.frames import Event, Failure, FrameDecoder, FrameError, Layout
from brokers.sdk.pacing import Pace
from schemas.brokers import CopyGrant
from schemas.problems import Problem, permanent, temporary


async def read_events(
    grant: CopyGrant, part: str, layout: Layout, *, path: str, pace: Pace | None = None
) -> AsyncIterator[Event]:
    """The events at `path` below the grant's copy, END last; their bytes no faster than `pace`.

    Raises CopyStreamError; its problem is temporary if the connection broke, permanent if what arrived is no such
    body, and what the repository says if it gives up.
    """
    decoder = FrameDecoder(layout)
    async with (
        connection(grant) as session,
        request(session, "GET", f"{grant.url}/{path}", part=part, headers={"Accept": layout.media_type}) as response,
    ):
        if response.content_type != layout.media_type:
            raise CopyStreamError(
                permanent("wrong_layout", f"the part is {response.content_type}, not {layout.value}", field=part)
            )
        try:
            async for block in response.content.iter_any():
                if pace is not None:
                    await pace.take(len(block))
                for event in decoder.feed(block):
                    if isinstance(event, Failure):
                        raise CopyStreamError(failure_of(part, event))
                    yield event
            decoder.finish()
        except FrameError as error:
            if decoder.done:
                raise damaged(part, str(error)) from error
            raise broken(part, error) from error


def failure_of(part: str, failure: Failure) -> Problem:
    """What the repository said."""
    if failure.temporary:
        return temporary(failure.code, failure.message, field=part)
    return permanent(failure.code, failure.message, field=part)
