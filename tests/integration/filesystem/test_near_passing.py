"""Open files and connections that pass between processes of one machine: whose they are, and when they are closed."""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from brokers.repository import near as receiving
from brokers.sdk import near
from brokers.sdk.copystream import CopyReader, CopyWriter
from brokers.sdk.copystream_near import Received
from brokers.sdk.near import PassedFile, files_address, passed_file
from tests.integration.broker_process import eventually
from tests.integration.filesystem.certificates import Authority
from tests.integration.filesystem.site import Site

pytestmark = pytest.mark.skipif(not near.available(), reason="this system has no such sockets")
SECONDS = 60.0


@pytest.fixture
async def here(tmp_path: Path, authority: Authority) -> AsyncIterator[Site]:
    async with Site("here", directory=tmp_path, authority=authority, near=True) as site:
        yield site


@pytest.fixture
def name() -> str:
    return f"calque-test-{os.urandom(12).hex()}"


@pytest.fixture
def listening(name: str) -> Iterator[socket.socket]:
    """In the place of a repository."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(files_address(name))
        listener.listen()
        listener.settimeout(SECONDS)
        yield listener


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(b"to be passed")
    return made


def connected(name: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(SECONDS)
    connection.connect(files_address(name))
    return connection


async def passes(site: Site, file: Path) -> bool:
    with file.open("rb") as opened:
        async with CopyWriter(site.open_write("c1")).passing(opened.fileno()) as passed:
            return passed


async def test_who_is_cancelled_passes_no_other_file(
    name: str, listening: socket.socket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    went, go = threading.Event(), threading.Event()
    connect = near._connect

    def late(where: str) -> socket.socket:
        went.set()
        assert go.wait(SECONDS)
        return connect(where)

    monkeypatch.setattr(near, "_connect", late)
    descriptor = os.open(file, os.O_RDONLY)
    inode = os.fstat(descriptor).st_ino

    async def passing() -> None:
        async with passed_file(name, descriptor, progress=lambda _: None):
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(passing())
    assert await asyncio.to_thread(went.wait, SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    secret = file.with_name("secret")
    secret.write_bytes(b"nobody's business")
    # What the number means from now on.
    other = os.open(secret, os.O_RDONLY)
    os.dup2(other, descriptor)
    os.close(other)
    try:
        go.set()
        connection, _ = await asyncio.to_thread(listening.accept)
        with connection:
            _, received, _, _ = await asyncio.to_thread(socket.recv_fds, connection, 100, 1)
            assert [os.fstat(each).st_ino for each in received] == [inode]
            for each in received:
                os.close(each)
            connection.send(b"k")
            # The client that nobody waits for lets go.
            assert await asyncio.to_thread(connection.recv, 1) == b""
    finally:
        os.close(descriptor)


async def test_a_connection_is_closed_also_when_leaving_it_is_cancelled(
    name: str, listening: socket.socket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, leave = asyncio.Event(), asyncio.Event()

    async def listen(_: PassedFile) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await leave.wait()

    monkeypatch.setattr(PassedFile, "listen", listen)

    async def passing(descriptor: int) -> None:
        async with passed_file(name, descriptor, progress=lambda _: None):
            inside.set()
            await asyncio.Event().wait()

    def answer() -> socket.socket:
        connection, _ = listening.accept()
        connection.recv(100)
        connection.send(b"k")
        connection.settimeout(SECONDS)
        return connection

    with file.open("rb") as opened:
        task = asyncio.create_task(passing(opened.fileno()))
        with await asyncio.to_thread(answer) as connection:
            await inside.wait()
            for _ in range(2):
                task.cancel()
                await asyncio.sleep(0)
            leave.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(connection.recv, 1) == b""


async def test_who_connects_and_says_nothing_keeps_nobody_waiting(here: Site, file: Path) -> None:
    name = here.open_write("c1").near
    silent = [connected(name) for _ in range(receiving.MOST_WAITING - 10)]
    try:
        assert await passes(here, file)
    finally:
        for connection in silent:
            connection.close()


async def test_one_user_takes_no_place_of_others(here: Site, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = [4000, 4000]
    monkeypatch.setattr(receiving, "MOST_WAITING", 2)
    monkeypatch.setattr(receiving, "user_of", lambda _: users.pop(0) if users else 0)
    name = here.open_write("c1").near
    silent = [connected(name) for _ in range(2)]
    assert await passes(here, file)
    silent += [connected(name) for _ in range(2)]
    assert not await passes(here, file), "so many of this user wait already"
    for connection in silent:
        connection.close()
    again = asyncio.get_running_loop().time() + SECONDS
    while not await passes(here, file):
        assert asyncio.get_running_loop().time() < again, "their places are not free again"


@pytest.mark.parametrize("said", [b"short", b"?" * near.HANDLE_BYTES, b""])
async def test_what_is_no_handle_is_let_go_with_what_came_along(here: Site, file: Path, said: bytes) -> None:
    name = here.open_write("c1").near
    before = opened_times(file)
    with connected(name) as connection:
        if said:
            with file.open("rb") as opened:
                socket.send_fds(connection, [said], [opened.fileno()])
        else:
            connection.shutdown(socket.SHUT_WR)
        assert await asyncio.to_thread(connection.recv, 1) == b""
    await eventually(lambda: opened_times(file) == before, seconds=SECONDS, what="the file is closed again")


def opened_times(file: Path) -> int:
    """How many descriptors of this process lead to the file."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += descriptor.readlink() == file
    return count


async def test_taking_has_ended_however_often_it_was_cancelled(here: Site) -> None:
    async def entries() -> AsyncIterator[tuple[str, dict[str, str], int, AsyncIterator[bytes]]]:
        for number in range(10):
            yield f"{number}", {}, 1, one(b"x")

    await CopyWriter(here.open_write("c1")).write_entries("tree", entries())
    here.repository.commit("c1")
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def take(events: Iterator[Received]) -> None:
        try:
            for _ in events:
                began.set()
                assert go_on.wait(SECONDS)
        finally:
            ended.set()

    taking = asyncio.create_task(CopyReader(here.open_read("c1")).take_entries("tree", take))
    assert await asyncio.to_thread(began.wait, SECONDS)
    for _ in range(3):
        taking.cancel()
        await asyncio.wait({taking}, timeout=0.1)
    assert not taking.done(), "the thread still reads"
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await taking
    assert ended.is_set()


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data
