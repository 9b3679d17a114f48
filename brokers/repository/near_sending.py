"""Sends a part with entries to a reader on the same machine (`brokers.sdk.near_frames`), from one thread."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine
from typing import Any

from brokers.repository.endpoint_errors import storage_problem
from brokers.repository.manifest import Part
from brokers.repository.near import ReceivedStream
from brokers.repository.opened import CopyRepository
from brokers.repository.partreader import WholeEntries
from brokers.sdk.frames import Data, Failure, data_header, encode
from brokers.sdk.near_frames import STALL_SECONDS, send_all, send_whole, widen
from schemas.problems import CalqueError

logger = logging.getLogger(__name__)


def send_part(repository: CopyRepository, connection: socket.socket, *, copy: str, part: Part) -> None:
    """Sends all of it; a part that can't be read ends in FAILURE. Blocks. Somebody who goes away is no error."""
    connection.settimeout(STALL_SECONDS)
    widen(connection)
    try:
        try:
            for event in repository.read_batches(copy, part):
                if isinstance(event, WholeEntries):
                    send_whole(connection, event.lines, event.data)
                elif isinstance(event, Data):
                    send_all(connection, [data_header(len(event.data)), event.data])
                else:
                    connection.sendall(encode(event))
        except CalqueError as error:
            problem = error.problem
            connection.sendall(encode(Failure(problem.code, problem.message, problem.temporary)))
    except (ConnectionError, TimeoutError) as error:
        logger.info("%s/%s: the reader went away: %s", copy, part.name, error)
    except OSError as error:
        problem = storage_problem(error).problem
        connection.sendall(encode(Failure(problem.code, problem.message, problem.temporary)))


async def until_sent(stream: ReceivedStream, sending: Coroutine[Any, Any, None]) -> None:
    """Waits for a thread that sends on the connection, and closes that when it is through, however this ends: before,
    the number of its descriptor must not be another's. When cancelled, the thread fails soon."""
    task = asyncio.create_task(sending)

    def close(_: object) -> None:
        stream.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.info("what a reader asked for was not sent: %s", error)

    task.add_done_callback(close)
    try:
        await asyncio.shield(task)
    finally:
        stream.end()
        await asyncio.wait({task})
