"""Copy repository brokers: the copy endpoint lets in who has a token, and takes whole parts only."""

from __future__ import annotations

import asyncio

from brokers.testkit.checks import Unmet, check, holds
from brokers.testkit.crb_bench import CrbBench, Refused, with_token
from brokers.testkit.parts import stream_body
from schemas.brokers import CopyGrant, DescribeCopy, InfoRequest, ListCopies, StatusRequest

HTTP = "docs/repository-format-0.md, HTTP: a token is for one copy and one purpose, and expires"
FRAMES = "docs/repository-format-0.md, Frames"
REFUSALS = (401, 403)
TTL_SECONDS = 0.3


def is_refused(found: Refused | None, what: str) -> None:
    """It was refused with 401 or 403."""
    if found is None:
        raise Unmet(f"{what} is let in")
    holds(found.status in REFUSALS, f"{what} is answered with status {found.status}, not 401 or 403")


def at(grant: CopyGrant, place: CopyGrant) -> CopyGrant:
    """The token of one grant at the address of another."""
    return with_token(place, grant.token.value)


@check("crb.read.same", "What is read is what was written.", spec=HTTP)
async def read_same(bench: CrbBench) -> None:
    data = bench.data() * 500
    copy, _ = await bench.committed(data)
    holds(await bench.read(await bench.open_read(copy)) == data, "the bytes are others")


@check("crb.token.none", "Without a token nothing is let in.", spec=HTTP)
async def token_none(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    is_refused(await bench.get_raw(with_token(await bench.open_read(copy), "")), "a request without a token")


@check("crb.token.forged", "A token that it did not issue is refused.", spec=HTTP)
async def token_forged(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    grant = await bench.open_read(copy)
    value = grant.token.value
    changed = value[:-6] + ("AAAAAA" if not value.endswith("AAAAAA") else "BBBBBB")
    is_refused(await bench.get_raw(with_token(grant, changed)), "a changed token")


@check("crb.token.other_copy", "A token for one copy opens no other.", spec=HTTP)
async def token_other_copy(bench: CrbBench) -> None:
    one, _ = await bench.committed()
    other, _ = await bench.committed()
    grant = at(await bench.open_read(one), await bench.open_read(other))
    is_refused(await bench.get_raw(grant), "the token of another copy")


@check("crb.token.purpose", "A read token does not write, a write token does not read.", spec=HTTP)
async def token_purpose(bench: CrbBench) -> None:
    copy = bench.new_copy()
    write = await bench.open_write(copy)
    part = await bench.write(write, bench.data())
    await bench.commit(copy, part)
    read = await bench.open_read(copy)
    is_refused(await bench.get_raw(at(write, read)), "reading with a write token")
    is_refused(await bench.put_raw(at(read, write), stream_body(b"x")), "writing with a read token")


@check("crb.token.expired", "An expired token is refused.", spec=HTTP)
async def token_expired(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    grant = await bench.open_read(copy, ttl_seconds=TTL_SECONDS)
    await asyncio.sleep(TTL_SECONDS)

    async def refused() -> bool:
        return await bench.get_raw(grant) is not None

    await bench.until(refused, f"it is let in, its ttl_seconds was {TTL_SECONDS}")
    is_refused(await bench.get_raw(grant), "an expired token")


@check("crb.token.ours", "A token is told in no other answer than its grant.", spec="schemas/secrets.py")
async def token_ours(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    part = await bench.write(grant, bench.data())
    commit = bench.commit_request(copy, part)
    await bench.talk.finish("commit", commit)
    for operation, request in (
        ("info", InfoRequest()),
        ("list", ListCopies()),
        ("describe", DescribeCopy(copy=copy)),
        ("status", StatusRequest(id=commit.id)),
    ):
        answer = await bench.talk.exchange(operation, request)
        holds(grant.token.value.encode() not in answer.payload, f"the answer to {operation} tells a token")


@check("crb.part.cut_short", "A part that was cut short counts for nothing.", spec=FRAMES)
async def part_cut_short(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    holds(await bench.put_raw(grant, stream_body(bench.data())[:-20]), "a body without its END frame is accepted")
    await bench.commit(copy, await bench.write(grant, bench.data(), part="whole"))


@check("crb.part.damaged", "A part that is not what its END frame says is refused.", spec=FRAMES)
async def part_damaged(bench: CrbBench) -> None:
    grant = await bench.open_write(bench.new_copy())
    refused = await bench.put_raw(grant, stream_body(bench.data(), digest="0" * 64))
    holds(refused, "a part with another digest than its END frame says is accepted")


@check("crb.part.again", "A part that is written again is the one that counts.", spec=HTTP)
async def part_again(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    await bench.write(grant, bench.data())
    data = bench.data()
    await bench.commit(copy, await bench.write(grant, data))
    holds(await bench.read(await bench.open_read(copy)) == data, "the bytes are others")
