"""The blocking reader against a real server: all, once, in order, whatever becomes of the server; TLS and keys."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus.connection import Bus, BusSettings
from bus.draining import Drain
from bus.feed import EventsFeed
from bus.jetstream import JetStream
from bus.records import Recorded
from bus.sockets import BlockingConnection, ConnectionLost
from hub.application.projector import Projector
from hub.projections.dump import dump
from hub.projections.state import Projections
from tests.bench.shaped import history, load
from tests.integration.bus.conftest import Server, until

COUNT = 6_000


@pytest.fixture
async def filled(tmp_path: Path) -> AsyncIterator[tuple[Server, Bus]]:
    """A server with a history in its ``EVENTS``."""
    server = Server(tmp_path)
    await server.start()
    bus = await Bus.connect(BusSettings(servers=[server.url], name="test"), deadline_seconds=60)
    try:
        await load(bus, "EVENTS", history(events=COUNT, sites=10, seed=3))
        # For a source of which it holds nothing, a server that starts looks through the whole stream.
        js = JetStream(bus)
        config = (await js.call("STREAM.INFO.EVENTS"))["config"]
        await js.call("STREAM.UPDATE.EVENTS", {**config, "sources": None, "subjects": ["EVENTS"]})
        yield server, bus
    finally:
        await bus.close()
        server.kill()


async def test_the_server_is_killed_while_the_hub_catches_up(
    filled: tuple[Server, Bus], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, bus = filled
    await JetStream(bus).call("STREAM.MSG.DELETE.EVENTS", {"seq": 2321})  # a hole, as of an event that was erased
    reference = Projections()
    feed = EventsFeed(bus)
    async for batch in feed.read():
        reference.apply(batch)
        if feed.position >= COUNT:
            break
    assert reference.events == COUNT - 1

    killed, going_on = threading.Event(), threading.Event()
    monkeypatch.setattr("bus.draining.PULL_MESSAGES", 500)
    feed = EventsFeed(bus)

    async def drain(take: object, *, after: int) -> None:
        def taken(batch: list[tuple[int, str, bytes]]) -> list[Recorded]:
            if batch[-1][0] > COUNT // 2 and not killed.is_set():
                killed.set()
                assert going_on.wait(20)
            refused: list[Recorded] = take(batch)  # type: ignore[operator]
            return refused

        await feed.drain(taken, after=after)

    projector = Projector(feed, drain=drain)
    running = asyncio.create_task(projector.run())
    try:
        assert await asyncio.to_thread(killed.wait, 20)
        server.kill()
        await server.start()
        going_on.set()
        await projector.reached(COUNT, timeout_seconds=30)
        assert dump(projector.state) == dump(reference)
        async with projector.held() as (_, place):
            assert place is not None
            assert place.sequence == COUNT
        # and from here on it follows
        await bus.call("EVENTS", b"{}", timeout_seconds=60)
        await projector.reached(COUNT + 1, timeout_seconds=60)
        assert feed.refused == 1
    finally:
        going_on.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.full
async def test_a_reader_stops_when_it_is_told_to_and_ends_where_it_should(filled: tuple[Server, Bus]) -> None:
    server, bus = filled
    settings = BusSettings(servers=[server.url])

    def sequences(drain: Drain) -> list[int]:
        return [sequence for batch in drain.read() for sequence, _, _ in batch]

    part = Drain(settings, stream="EVENTS", after=100, until=4000)
    assert await asyncio.to_thread(sequences, part) == list(range(101, 4001))
    assert (part.complete, part.position) == (True, 4000)
    beyond = Drain(settings, stream="EVENTS", after=COUNT)
    assert await asyncio.to_thread(sequences, beyond) == []
    assert beyond.complete
    stopped = Drain(settings, stream="EVENTS")
    batches = stopped.read()
    assert await asyncio.to_thread(next, batches)
    stopped.stop()
    assert await asyncio.to_thread(list, batches) == []
    assert not stopped.complete

    async def no_reader_left() -> bool:
        names = (await JetStream(bus).call("CONSUMER.NAMES.EVENTS"))["consumers"] or []
        return not any(name.startswith("drain-") for name in names)

    await until(no_reader_left, what="readers leave no consumer behind")


async def test_a_stream_that_can_not_be_read_is_given_up(filled: tuple[Server, Bus]) -> None:
    server, _ = filled
    none = Drain(BusSettings(servers=[server.url]), stream="NONE")
    assert await asyncio.to_thread(list, none.read()) == []
    assert not none.complete
    nobody = Drain(BusSettings(servers=["nats://127.0.0.1:1"]), stream="EVENTS")
    assert await asyncio.to_thread(list, nobody.read()) == []
    assert not nobody.complete


def certificate(home: Path) -> tuple[Path, Path]:
    """A certificate of the loopback address, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "hub")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = home / "certificate.pem", home / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


async def test_tls_and_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate_file, key_file = certificate(tmp_path)
    seeds = [bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode() for _ in range(2)]
    for number, seed in enumerate(seeds):
        (tmp_path / f"{number}.nk").write_text(seed)
    known = bytes(nkeys.from_seed(bytearray(seeds[0].encode())).public_key).decode()
    server = Server(
        tmp_path,
        more=f'authorization {{ users: [ {{ nkey: {known} }}, {{ user: "reader", password: "a b" }} ] }}\n'
        f'tls {{ cert_file: "{certificate_file}", key_file: "{key_file}" }}\n',
    )
    await server.start()
    try:
        url = server.url.replace("nats://", "tls://")
        mine = BusSettings(servers=[url], nkey_seed_file=str(tmp_path / "0.nk"), inbox_prefix="_INBOX.mine")
        with pytest.raises(ConnectionLost, match="certificate"):
            BlockingConnection(mine, silence_seconds=5)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate_file))
        with pytest.raises(ConnectionLost, match="Authorization"):
            BlockingConnection(BusSettings(servers=[url], nkey_seed_file=str(tmp_path / "1.nk")), silence_seconds=5)
        bus = await Bus.connect(mine, deadline_seconds=60)
        try:
            await load(bus, "EVENTS", history(events=3000, sites=3, seed=4))
        finally:
            await bus.close()
        by_password = BusSettings(servers=[server.url.replace("nats://", "nats://reader:a%20b@")])
        for settings in (mine, by_password):
            drain = Drain(settings, stream="EVENTS")
            batches = await asyncio.to_thread(list, drain.read())
            assert (sum(map(len, batches)), drain.complete) == (3000, True)
    finally:
        server.kill()
