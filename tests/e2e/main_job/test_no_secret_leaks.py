"""No secret is anywhere that it mustn't be: not in streams, logs, argument lists, states or what the CLI prints."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.main_job.conftest import Told
from tests.e2e.main_job.ways import must
from tests.e2e.stack import Ended, Stack

pytestmark = [pytest.mark.stack, pytest.mark.xdist_group("stack")]

# Where a secret of a server belongs: the administrators' own files, and what the S3 server keeps of its identities.
ALLOWED = ("postgres/superuser.password", "s3/")


async def test_no_secret_is_where_it_must_not_be(stack: Stack, told: Told) -> None:
    secrets = await _secrets(stack)
    assert len(secrets) >= 2 * 3 + 2 * 2, sorted(secrets)
    printed = list(told.commands.values())
    operations = (await must(stack, "operation", "list", "-o", "json")).json
    for form in ("table", "json"):
        for arguments in (
            *(("app", verb, app) for verb in ("describe", "logs") for app in ("ideas", "copy")),
            *(("operation", "describe", each["id"]) for each in operations[-6:]),
            ("image", "describe", "first"),
            ("events",),
            ("status",),
            ("broker", "list"),
        ):
            printed.append(await must(stack, *arguments, "-o", form))

    leaks = []
    for name, forms in secrets.items():
        leaks += [f"{name} was printed" for each in printed if _within(_text(each), forms)]
        leaks += [f"{name} in the command line {line[:120]!r}" for line in told.command_lines if _within(line, forms)]
    leaks += await asyncio.to_thread(_in_files, stack.home, secrets)
    assert leaks == []


async def test_the_search_for_secrets_is_not_blind(stack: Stack, told: Told) -> None:
    """The name of a database and a bucket, which are no secrets, are found where they have to be."""
    plain = {service["name"]: service["binding"] for service in told.app["data_services"]}
    known = {"database": _forms(plain["ideas"]["database"]), "bucket": _forms(plain["docs"]["bucket"])}
    found = await asyncio.to_thread(_in_files, stack.home, known)
    for place in ("hub/nats/jetstream", "sites/north/nats/jetstream"):
        for name in known:
            assert any(name in line and place in line for line in found), (place, name, found)
    encoded = base64.b64encode(b'{"x": "' + plain["docs"]["bucket"].encode() + b'"}')
    assert _within(encoded, known["bucket"])
    for program in (b"nats-server", b"hub.cli.main", b"-m brokers.postgres", b"-m app"):
        assert any(program in line for line in told.command_lines), program


async def _secrets(stack: Stack) -> dict[str, tuple[bytes, ...]]:
    """Every secret of the stack by what it is, each in the forms it may appear in."""
    values: dict[str, str] = {}
    async with await stack.client() as client:
        for app in [await client.app(name) for name in ("ideas", "copy")]:
            for service in app.data_services:
                opened = await client.binding(app.id, service.name)
                for name, secret in opened.secrets.items():
                    values[f"{app.name}/{service.name}/{name}"] = secret.value
    for site in stack.sites:
        place = stack.home / "sites" / site
        values[f"{site} superuser"] = (place / "postgres" / "superuser.password").read_text().strip()
        values[f"{site} S3 administrator"] = (place / "s3" / "admin.secret-key").read_text().strip()
    assert all(len(value) >= 16 for value in values.values())
    return {name: _forms(value) for name, value in values.items()}


def _forms(value: str) -> tuple[bytes, ...]:
    """As it is, for URLs, in JSON, in hexadecimal, and in base64 at each of its three alignments."""
    raw = value.encode()
    forms = {raw, urllib.parse.quote(value, safe="").encode(), json.dumps(value)[1:-1].encode(), raw.hex().encode()}
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The characters at both ends also depend on what stands beside.
            forms.add(encode(b"\0" * shift + raw).rstrip(b"=")[(shift * 8 + 5) // 6 :][:-1])
    return tuple(forms)


def _within(content: bytes, forms: tuple[bytes, ...]) -> bool:
    return any(form in content for form in forms)


def _text(ended: Ended) -> bytes:
    return (ended.stdout + ended.stderr).encode()


def _in_files(home: Path, secrets: Mapping[str, tuple[bytes, ...]]) -> list[str]:
    """Which secret is in which file below the home: streams of all NATS servers, logs, states, settings, images."""
    found = []
    for file in home.rglob("*"):
        place = file.relative_to(home).as_posix()
        if not file.is_file() or place.partition("/")[2].partition("/")[2].startswith(ALLOWED):
            continue
        with contextlib.suppress(FileNotFoundError):
            content = file.read_bytes()
            found += [f"{name} in {place}" for name, forms in secrets.items() if _within(content, forms)]
    return found
