"""Copy repository brokers: writing, committing, listing, deleting, transferring copies."""

from __future__ import annotations

import asyncio
import re

import msgspec

from brokers.testkit.bench import name_of, needs
from brokers.testkit.checks import check, holds
from brokers.testkit.conversation import Conversation, renewed
from brokers.testkit.crb_bench import FORMAT, CrbBench
from brokers.testkit.parts import stream_body
from schemas.brokers import (
    AbortCopy,
    Collect,
    Collected,
    Committed,
    CopyDescription,
    CopyGrant,
    CrbInfo,
    DescribeCopy,
    Done,
    ForgetImage,
    ImageList,
    ListImages,
    OpenRead,
    RecordImage,
    Repositories,
    RepositoriesRequest,
    TransferCopy,
    Verified,
)
from schemas.ids import new_id
from schemas.values import CopyPart, ImageContent

OPEN = "schemas/brokers, OpenWrite and CopyGrant"
COMMIT = "schemas/brokers, CommitCopy"
ABORT = "schemas/brokers, AbortCopy"
DELETE = "schemas/brokers, DeleteCopy"
HALF = "schemas/brokers, CommitCopy: from here on the copy exists"
TRANSFER = "schemas/brokers, TransferCopy"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@check("crb.info.fingerprint", "info tells the certificate's fingerprint, and grants name the same.", spec=OPEN)
async def info_fingerprint(bench: CrbBench) -> None:
    info: CrbInfo = await bench.info()
    holds(_FINGERPRINT.fullmatch(info.fingerprint), f"{info.fingerprint!r} is not 64 hexadecimal digits")
    grant = await bench.open_write(bench.new_copy())
    holds(grant.fingerprint == info.fingerprint, f"a grant names {grant.fingerprint}, info {info.fingerprint}")


@check("crb.repositories", "repositories answers what info names.", spec="schemas/brokers, Repositories")
async def repositories(bench: CrbBench) -> None:
    info: CrbInfo = await bench.info()
    said = await bench.talk.ask("repositories", RepositoriesRequest(), Repositories)
    holds(set(said.repositories) == set(info.repositories), f"{said.repositories}, info {info.repositories}")


@check("crb.open_write.grant", "open_write answers a write grant for this copy, over a protocol of info.", spec=OPEN)
async def open_write_grant(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    holds((grant.copy, grant.purpose) == (copy, "write"), f"it is for {grant.purpose} of {grant.copy}")
    info: CrbInfo = await bench.info()
    holds(grant.protocol in info.protocols, f"protocol {grant.protocol}, info {info.protocols}")
    holds(grant.expires_at and grant.token.value, "it has no token or no end")


@check("crb.open_write.resumes", "Opening a copy again goes on with it: parts that are there stay.", spec=OPEN)
async def open_write_resumes(bench: CrbBench) -> None:
    copy, part = await bench.written()
    second = await bench.write(await bench.open_write(copy), bench.data(), part="second")
    await bench.commit(copy, part, second)


@check("crb.half.not_listed", "A copy that is not committed is not listed.", spec=HALF)
async def half_not_listed(bench: CrbBench) -> None:
    copy, _ = await bench.written()
    holds(not await bench.listed(copy), "it is listed")


@check(
    "crb.half.not_readable", "A copy that is not committed is not_found to describe, open_read and verify.", spec=HALF
)
async def half_not_readable(bench: CrbBench) -> None:
    copy, _ = await bench.written()
    await bench.talk.refuses("describe", DescribeCopy(copy=copy), "not_found")
    await bench.talk.refuses("open_read", OpenRead(copy=copy), "not_found")
    await bench.talk.refuses("verify", bench.verify_request(copy), "not_found")


@check("crb.commit.listed", "A committed copy is listed as commit told it.", spec=COMMIT)
async def commit_listed(bench: CrbBench) -> None:
    copy, committed = await bench.committed()
    mine = [each for each in await bench.list() if each.copy == copy]
    holds(mine == [committed.summary], f"listed {mine}, committed {committed.summary}")


@check("crb.commit.summary", "The summary has the parts, the sizes and the digests of what was written.", spec=COMMIT)
async def commit_summary(bench: CrbBench) -> None:
    data = bench.data()
    copy, part = await bench.written(data)
    summary = (await bench.commit(copy, part)).summary
    told = [(each.name, each.size, each.digest) for each in summary.parts]
    holds(told == [(part.name, part.size, part.digest)], f"parts {told}, written {part}")
    holds(summary.size == len(data), f"size {summary.size}, written {len(data)}")
    holds(summary.merkle_root and summary.manifest_digest, "a digest is empty")


@check("crb.commit.repeated", "Committing again, by any id, has the same answer for ever.", spec=COMMIT)
async def commit_repeated(bench: CrbBench) -> None:
    copy, part = await bench.written()
    request = bench.commit_request(copy, part)
    first = await bench.talk.run("commit", request, Committed)
    again = await bench.talk.run("commit", request, Committed)
    attempt = await bench.talk.run("commit", renewed(request), Committed)
    holds(first == again == attempt, f"first {first}, then {again} and {attempt}")


@check("crb.commit.concurrent", "Two commits at once have the same answer.", spec=COMMIT)
async def commit_concurrent(bench: CrbBench) -> None:
    copy, part = await bench.written()
    request = bench.commit_request(copy, part)
    results = await asyncio.gather(
        *(bench.talk.run("commit", each, Committed) for each in (request, renewed(request), renewed(request)))
    )
    holds(all(each == results[0] for each in results), f"{results}")


@check("crb.commit.parts_differ", "Parts with another digest or size than received are parts_differ.", spec=COMMIT)
async def commit_parts_differ(bench: CrbBench) -> None:
    copy, part = await bench.written()
    for wrong in (msgspec.structs.replace(part, digest="0" * 64), msgspec.structs.replace(part, size=part.size + 1)):
        await bench.talk.refuses("commit", bench.commit_request(copy, wrong), "parts_differ")
    holds(not await bench.listed(copy), "it is listed all the same")


@check("crb.commit.missing_part", "A part that never came, or one too few, is parts_differ.", spec=COMMIT)
async def commit_missing_part(bench: CrbBench) -> None:
    copy, part = await bench.written()
    absent = CopyPart(name="absent", media_type=part.media_type, size=1, digest="0" * 64)
    await bench.talk.refuses("commit", bench.commit_request(copy, part, absent), "parts_differ", "incomplete")
    await bench.talk.refuses("commit", bench.commit_request(copy), "parts_differ")
    await bench.commit(copy, part)


@check("crb.commit.unknown", "Committing a copy that was never opened is not_found.", spec=COMMIT)
async def commit_unknown(bench: CrbBench) -> None:
    await bench.talk.refuses("commit", bench.commit_request(bench.new_copy()), "not_found")


@check("crb.commit.sealed", "After the commit nothing changes the copy, its write token neither.", spec=COMMIT)
async def commit_sealed(bench: CrbBench) -> None:
    data = bench.data()
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    part = await bench.write(grant, data)
    await bench.commit(copy, part)
    refused = await bench.put_raw(grant, b"\x00")
    late = await bench.open_write(copy)
    written = await _refuses_writing(bench, late)
    holds(refused is not None and written, "a part is accepted after the commit")
    holds(await bench.read(await bench.open_read(copy)) == data, "the bytes are others")


async def _refuses_writing(bench: CrbBench, grant: CopyGrant) -> bool:
    return await bench.put_raw(grant, stream_body(b"other bytes")) is not None


@check("crb.abort.gone", "After abort the copy is gone: it can't be committed or written.", spec=ABORT)
async def abort_gone(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    part = await bench.write(grant, bench.data())
    await bench.abort(copy)
    await bench.talk.refuses("commit", bench.commit_request(copy, part), "not_found")
    holds(await _refuses_writing(bench, grant), "its write token still writes")


@check("crb.abort.unknown", "Aborting an unknown copy is done.", spec=ABORT)
async def abort_unknown(bench: CrbBench) -> None:
    await bench.abort(name_of("nobody"))


@check("crb.abort.committed", "Aborting a committed copy is a conflict, and the copy stays.", spec=ABORT)
async def abort_committed(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    await bench.talk.refuses("abort", AbortCopy(id=new_id(), copy=copy), "conflict", "already_committed")
    holds(await bench.listed(copy), "it is not listed any more")


@check("crb.abort.again", "An aborted copy can be opened anew, and is empty.", spec=ABORT)
async def abort_again(bench: CrbBench) -> None:
    copy, part = await bench.written()
    await bench.abort(copy)
    await bench.open_write(copy)
    await bench.talk.refuses("commit", bench.commit_request(copy, part), "parts_differ", "incomplete")


@check("crb.describe", "describe tells what open_write and commit were told.", spec="schemas/brokers, CopyDescription")
async def describe(bench: CrbBench) -> None:
    copy, committed = await bench.committed()
    said = await bench.talk.ask("describe", DescribeCopy(copy=copy), CopyDescription)
    holds(said.source == bench.source, f"source {said.source}")
    holds(said.summary == committed.summary, f"summary {said.summary}")
    told = (said.moment, said.level, said.copied.copy_format)
    holds(told == ("the moment of the check", "crash", FORMAT), f"moment, level and format {told}")
    holds(said.created_at, "created_at is empty")


@check("crb.unknown", "describe, open_read and verify of an unknown copy are not_found.", spec=HALF)
async def unknown(bench: CrbBench) -> None:
    copy = name_of("nobody")
    await bench.talk.refuses("describe", DescribeCopy(copy=copy), "not_found")
    await bench.talk.refuses("open_read", OpenRead(copy=copy), "not_found")


@check("crb.verify.sound", "verify of a sound copy finds no faults.", spec="schemas/brokers, Verified")
async def verify_sound(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    said = await bench.talk.run("verify", bench.verify_request(copy), Verified)
    holds(said.copy == copy and not said.faults, f"it says {said}")


@check("crb.verify.unknown", "verify of an unknown copy is not_found.", spec="schemas/brokers, Verified")
async def verify_unknown(bench: CrbBench) -> None:
    await bench.talk.refuses("verify", bench.verify_request(name_of("nobody")), "not_found")


@check("crb.delete.gone", "A deleted copy is not listed and not found.", spec=DELETE)
async def delete_gone(bench: CrbBench) -> None:
    copy, _ = await bench.committed()
    await bench.delete(copy)
    holds(not await bench.listed(copy), "it is still listed")
    await bench.talk.refuses("describe", DescribeCopy(copy=copy), "not_found")


@check("crb.delete.unknown", "Deleting an unknown copy is done.", spec=DELETE)
async def delete_unknown(bench: CrbBench) -> None:
    await bench.delete(name_of("nobody"))


@check("crb.delete.frees", "Deleting a copy frees what it stored.", spec=DELETE, alone=True)
async def delete_frees(bench: CrbBench) -> None:
    before = (await bench.stats()).stored
    copy, _ = await bench.committed(b"".join(new_id().encode() for _ in range(4096)))
    between = (await bench.stats()).stored
    holds(between > before, f"stored {before} before and {between} with the copy")
    await bench.delete(copy)

    async def freed() -> bool:
        return (await bench.stats()).stored <= before

    await bench.until(freed, f"stored was {before} before the copy, {between} with it, and does not come back")


@check("crb.delete.shared", "Deleting a copy takes nothing from another with the same bytes.", spec=DELETE)
async def delete_shared(bench: CrbBench) -> None:
    data = bench.data() * 64
    first, _ = await bench.committed(data)
    second, _ = await bench.committed(data)
    await bench.delete(first)
    holds(await bench.read(await bench.open_read(second)) == data, "the other can't be read any more")
    said = await bench.talk.run("verify", bench.verify_request(second), Verified)
    holds(not said.faults, f"the other is damaged: {said.faults}")


@check("crb.collect", "collect takes nothing that a copy needs.", spec="schemas/brokers, Collect")
async def collect(bench: CrbBench) -> None:
    data = bench.data()
    copy, _ = await bench.committed(data)
    await bench.talk.run("collect", Collect(id=new_id()), Collected)
    holds(await bench.read(await bench.open_read(copy)) == data, "the copy can't be read any more")


@check("crb.stats", "stats counts copies.", spec="schemas/brokers, RepositoryStats", alone=True)
async def stats(bench: CrbBench) -> None:
    before = (await bench.stats()).copies
    await bench.committed()
    after = (await bench.stats()).copies
    holds(after == before + 1, f"{before} before a commit, {after} after it")


@check("crb.images", "An image's manifest is recorded once and forgotten once.", spec="schemas/brokers", alone=True)
async def images(bench: CrbBench) -> None:
    before = (await bench.stats()).images
    image = name_of("image")
    content = ImageContent(image=image, site=bench.talk.site, level="crash", instances=())
    for _ in range(2):
        await bench.talk.ask("record_image", RecordImage(id=new_id(), content=content), Done)
    holds((await bench.stats()).images == before + 1, "recorded twice, it does not count as one image")
    for _ in range(2):
        await bench.talk.ask("forget_image", ForgetImage(id=new_id(), image=image), Done)
    holds((await bench.stats()).images == before, "it is not forgotten")


@check(
    "crb.images.listed",
    "images lists what was recorded, and says when nothing changed.",
    spec="schemas/brokers",
    alone=True,
)
async def images_listed(bench: CrbBench) -> None:
    image = name_of("image")
    content = ImageContent(image=image, site=bench.talk.site, level="crash", instances=())
    await bench.talk.ask("record_image", RecordImage(id=new_id(), content=content), Done)
    found = await bench.images()
    holds(found.get(image) == content, "what was recorded is not listed as it was recorded")
    token = (await bench.talk.ask("images", ListImages(limit=1), ImageList)).token
    again = await bench.talk.ask("images", ListImages(known=token), ImageList)
    holds(again.unchanged and not again.images, "with the token of the last answer it does not say unchanged")
    await bench.talk.ask("forget_image", ForgetImage(id=new_id(), image=image), Done)
    holds(image not in await bench.images(), "what was forgotten is still listed")
    later = await bench.talk.ask("images", ListImages(known=token), ImageList)
    holds(not later.unchanged, "the token did not change")


@check("crb.restart.half", "A half copy goes on after a restart: its parts, and its token.", spec=OPEN, restarts=True)
async def restart_half(bench: CrbBench) -> None:
    copy = bench.new_copy()
    grant = await bench.open_write(copy)
    part = await bench.write(grant, bench.data())
    await bench.restart()
    second = await bench.write(grant, bench.data(), part="second")
    await bench.commit(copy, part, second)


@check("crb.restart.committed", "A committed copy is read after a restart.", spec=COMMIT, restarts=True)
async def restart_committed(bench: CrbBench) -> None:
    data = bench.data()
    copy, _ = await bench.committed(data)
    await bench.restart()
    holds(await bench.listed(copy), "it is not listed any more")
    holds(await bench.read(await bench.open_read(copy)) == data, "the bytes are others")


# --- between two repositories


def peer_of(bench: CrbBench) -> CrbBench:
    """The other repository, with a bench of its own."""
    name = needs(bench.options.peer, "a second repository is needed; give --peer")
    talk = Conversation(
        bench.talk.bus, site=bench.talk.site, kind="crb", broker=name, patience_seconds=bench.talk.patience_seconds
    )
    return bench.beside(talk)


@check("crb.transfer.same", "A transferred copy is the same: digests, bytes, description.", spec=TRANSFER)
async def transfer_same(bench: CrbBench) -> None:
    peer, data = peer_of(bench), bench.data()
    copy, committed = await peer.committed(data)
    bench.expect(copy)
    request = TransferCopy(id=new_id(), copy=copy, grant=await peer.open_read(copy))
    here = await bench.talk.run("transfer", request, Committed)
    root, other = here.summary.merkle_root, committed.summary.merkle_root
    holds(root == other, f"merkle root {root} here, {other} there")
    holds(await bench.read(await bench.open_read(copy)) == data, "the bytes are others")
    said = await bench.talk.ask("describe", DescribeCopy(copy=copy), CopyDescription)
    holds(said.source == peer.source, f"source {said.source}")
    await peer.tidy()


@check("crb.transfer.repeated", "A transfer of what is here already succeeds with the same answer.", spec=TRANSFER)
async def transfer_repeated(bench: CrbBench) -> None:
    peer = peer_of(bench)
    copy, _ = await peer.committed()
    bench.expect(copy)
    request = TransferCopy(id=new_id(), copy=copy, grant=await peer.open_read(copy))
    first = await bench.talk.run("transfer", request, Committed)
    await peer.tidy()
    again = await bench.talk.run("transfer", renewed(request), Committed)
    holds(first == again, f"first {first}, then {again}")


@check("crb.transfer.refused", "A transfer that the source refuses fails, and nothing is listed.", spec=TRANSFER)
async def transfer_refused(bench: CrbBench) -> None:
    copy = bench.new_copy()
    bench.copies.opened(copy).committed = True
    request = TransferCopy(id=new_id(), copy=copy, grant=bench.copies.grant(copy, "write"))
    await bench.talk.refuses("transfer", request)
    holds(not await bench.listed(copy), "it is listed")


@check("crb.transfer.other_grant", "A grant for another copy is refused.", spec=TRANSFER)
async def transfer_other_grant(bench: CrbBench) -> None:
    copy, other = bench.new_copy(), name_of("other")
    bench.copies.opened(other).committed = True
    request = TransferCopy(id=new_id(), copy=copy, grant=bench.copies.grant(other, "read"))
    await bench.talk.refuses("transfer", request)
    holds(not await bench.listed(copy), "it is listed")
