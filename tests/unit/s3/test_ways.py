"""Ways to a server: TLS with an authority of one's own, proxies, IPv6; and what is refused by name."""

from __future__ import annotations

import base64
import ssl
from pathlib import Path

import pytest

from brokers.s3.places import Place
from brokers.s3.refusals import Unreachable
from brokers.s3.wire import Wire
from schemas.problems import CalqueError
from tests.integration.filesystem.certificates import Authority
from tests.unit.s3.scripted import answer, scripted, tunnels


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("brokers.s3.wire.BACKOFF_SECONDS", 0.0)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serving(authority: Authority) -> ssl.SSLContext:
    identity = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.certificate, identity.key)
    return context


async def test_an_authority_of_one_s_own(authority: Authority) -> None:
    body = bytes(range(256)) * 4000
    async with scripted([answer(body)], [answer(b"")], tls=serving(authority)) as server:
        place = server.place._replace(ca_file=authority.path)
        async with Wire(place, "b") as wire:
            assert (await wire.ask("GET", "key")).body == body
            await wire.ask("PUT", "key", body=body)
        assert server.seen[1].body == body
        assert server.connections == 1
        async with Wire(server.place, "b") as stranger:
            with pytest.raises(Unreachable, match="certificate"):
                await stranger.ask("GET", "key")


async def test_a_file_of_authorities_that_is_not_there(tmp_path: Path) -> None:
    place = Place("https://127.0.0.1:1", "us-east-1", lambda: pytest.fail("not asked"), ca_file=tmp_path / "none.pem")
    with pytest.raises(CalqueError, match=r"none\.pem") as told:
        Wire(place, "b")
    assert (told.value.problem.field, told.value.problem.temporary) == ("ca_file", True)


async def test_an_address_of_ipv6() -> None:
    try:
        async with scripted([answer(b"six")], host="::1") as server, Wire(server.place, "b") as wire:
            assert (await wire.ask("GET", "key")).body == b"six"
            assert server.seen[0].headers["host"].startswith("[::1]:")
    except OSError as error:
        pytest.skip(f"this machine has no IPv6: {error}")


async def test_a_bucket_is_not_named_in_front_of_an_ip_address() -> None:
    place = Place("http://[::1]:8333", "us-east-1", lambda: pytest.fail("not asked"), virtual=True)
    with pytest.raises(CalqueError, match="IP address") as told:
        Wire(place, "b")
    assert told.value.problem.field == "addressing"


async def test_a_proxy_for_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted([answer(b"by proxy")]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.place.endpoint.replace("//", "//me:p%40ss@"))
        place = proxy.place._replace(endpoint="http://s3.example:8333")
        async with Wire(place, "b") as wire:
            assert (await wire.ask("GET", "k y")).body == b"by proxy"
    assert proxy.seen[0].line == "GET http://s3.example:8333/b/k%20y HTTP/1.1"
    assert proxy.seen[0].headers["host"] == "s3.example:8333"
    assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


async def test_a_tunnel_for_tls(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    body = bytes(300_000)
    async with (
        scripted([answer(body)], [answer(b"")], tls=serving(authority)) as server,
        tunnels(server.place.endpoint) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:secret@"))
        async with Wire(server.place._replace(ca_file=authority.path), "b") as wire:
            assert (await wire.ask("GET", "key")).body == body
            await wire.ask("PUT", "key", body=body)
    assert server.seen[1].body == body
    (asked,) = proxy.asked
    assert asked.startswith(f"CONNECT {server.place.endpoint.removeprefix('https://')} HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in asked


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", CalqueError),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", Unreachable),
        (b"nonsense\r\n\r\n", Unreachable),
        (b"", Unreachable),
    ],
)
async def test_a_proxy_that_makes_no_tunnel(
    monkeypatch: pytest.MonkeyPatch, authority: Authority, said: bytes, error: type[Exception]
) -> None:
    async with scripted(tls=serving(authority)) as server, tunnels(server.place.endpoint, answer=said) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with Wire(server.place._replace(ca_file=authority.path), "b") as wire:
            with pytest.raises(error, match="HTTPS_PROXY"):
                await wire.ask("GET", "key")
        assert server.seen == []


@pytest.mark.parametrize("proxy", ["socks5://me:hidden@h:1", "https://me:hidden@h:1", "http://:1", "http://h:x"])
async def test_another_kind_of_proxy_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    place = Place("https://s3.example", "us-east-1", lambda: pytest.fail("not asked"))
    with pytest.raises(CalqueError, match="HTTPS_PROXY") as told:
        Wire(place, "b")
    assert "hidden" not in str(told.value.problem)


@pytest.mark.parametrize("spared", ["127.0.0.1", "*", "example.org, 127.0.0.1"])
async def test_no_proxy_where_none_is_wanted(monkeypatch: pytest.MonkeyPatch, spared: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", spared)
    async with scripted([answer(b"direct")]) as server, Wire(server.place, "b") as wire:
        assert (await wire.ask("GET", "key")).body == b"direct"
    assert server.seen[0].line == "GET /b/key HTTP/1.1"
