"""Copy repository brokers: entries of the copy before are told, and kept instead of sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from brokers.sdk.copystream import CopyReader, CopyStreamError, CopyWriter, EntrySource, KeptEntry, KnownEntry
from brokers.testkit.bench import name_of
from brokers.testkit.checks import Unmet, check, holds
from brokers.testkit.crb_bench import PART, CrbBench
from schemas.brokers import Collect, Collected, CopyGrant
from schemas.ids import new_id
from schemas.values import CopyPart

SPEC = "docs/repository-format-0.md, HTTP: the parent of a write token"


async def _entries(contents: dict[str, bytes]) -> AsyncIterator[EntrySource]:
    for key, data in contents.items():
        yield key, {"of": key}, len(data), _once(data)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _each(entries: Iterable[EntrySource | KeptEntry]) -> AsyncIterator[EntrySource | KeptEntry]:
    for entry in entries:
        yield entry


async def _written(grant: CopyGrant, entries: AsyncIterator[EntrySource | KeptEntry]) -> CopyPart:
    try:
        return await CopyWriter(grant).write_entries(PART, entries)
    except CopyStreamError as error:
        raise Unmet(f"PUT of entries with a write grant: {error}") from None


async def _known(grant: CopyGrant) -> list[KnownEntry]:
    try:
        return [entry async for entry in CopyWriter(grant).known(PART)]
    except CopyStreamError as error:
        raise Unmet(f"GET of the known entries with a write grant: {error}") from None


async def _before(bench: CrbBench) -> tuple[str, dict[str, bytes]]:
    """A committed copy with three entries."""
    contents = {f"{name}/ä": bench.data() for name in ("a", "b", "c")}
    copy = bench.new_copy()
    await bench.commit(copy, await _written(await bench.open_write(copy), _entries(contents)))
    return copy, contents


def _kept(entry: KnownEntry, *, key: str = "") -> KeptEntry:
    return KeptEntry(key or entry.key, {"kept": "1"}, entry.size, entry.digest, entry.key if key else None)


@check("crb.kept.known", "The entries of the parent are told as they were written, and in that order.", spec=SPEC)
async def kept_known(bench: CrbBench) -> None:
    parent, contents = await _before(bench)
    grant = await bench.open_write(bench.new_copy(), parent=parent)
    found = await _known(grant)
    told = [(entry.key, entry.size, entry.metadata) for entry in found]
    holds(told == [(key, len(data), {"of": key}) for key, data in contents.items()], f"it tells {told}")
    copy = bench.new_copy()
    again = await _written(await bench.open_write(copy), _entries(contents))
    await bench.commit(copy, again)
    same = [entry.digest for entry in await _known(await bench.open_write(bench.new_copy(), parent=copy))]
    digests = [entry.digest for entry in found]
    holds(digests == same and len(set(digests)) == len(digests), "the digests are not those of the bytes")
    await _written(grant, _each(map(_kept, found)))


@check("crb.kept.same", "What is kept reads as what was written before, also when the parent is gone.", spec=SPEC)
async def kept_same(bench: CrbBench) -> None:
    parent, contents = await _before(bench)
    copy, new = bench.new_copy(), bench.data()
    grant = await bench.open_write(copy, parent=parent)
    holds(grant.parent == parent, f"the grant names {grant.parent!r} as parent, not {parent}")
    first, second, third = await _known(grant)
    entries: list[EntrySource | KeptEntry] = [_kept(third, key="moved"), _kept(first)]
    entries.append(("new", {}, len(new), _once(new)))
    await bench.commit(copy, await _written(grant, _each(entries)))
    await bench.delete(parent)
    await bench.talk.run("collect", Collect(id=new_id()), Collected)
    reader = CopyReader(await bench.open_read(copy))
    found = {
        head.key: b"".join([bytes(block) async for block in data]) async for head, data in reader.read_entries(PART)
    }
    expected = {"moved": contents[third.key], first.key: contents[first.key], "new": new}
    holds(found == expected, f"it has {sorted(found)}, or other bytes than {sorted(expected)} had")
    holds(second.key not in found, "it has an entry that was not kept")


@check("crb.kept.other", "Only entries of the parent can be kept, and only as they are.", spec=SPEC)
async def kept_other(bench: CrbBench) -> None:
    stranger, _ = await _before(bench)
    parent, _ = await _before(bench)
    strange = (await _known(await bench.open_write(bench.new_copy(), parent=stranger)))[0]
    mine = (await _known(await bench.open_write(bench.new_copy(), parent=parent)))[0]
    for wrong in (strange, KnownEntry(mine.key, mine.size, {}, strange.digest), KnownEntry("no", 1, {}, mine.digest)):
        try:
            grant = await bench.open_write(bench.new_copy(), parent=parent)
            await CopyWriter(grant).write_entries(PART, _each([_kept(wrong)]))
        except CopyStreamError:
            continue
        raise Unmet("an entry that the parent does not have is kept")


@check("crb.kept.unknown", "A parent that is not committed here is ignored: nothing is known.", spec=SPEC)
async def kept_unknown(bench: CrbBench) -> None:
    for parent in (name_of("nobody"), (await bench.written())[0]):
        grant = await bench.open_write(bench.new_copy(), parent=parent)
        holds(not grant.parent, f"the grant names {grant.parent!r} as parent")
        holds(not await _known(grant), "it tells entries")
