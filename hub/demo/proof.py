"""Judges a running copy of the sample application against the history of its writers.

The judge reads the copy's Postgres, bucket, volume and HTTP interface with its own client code and compares; it
trusts no statement of the application or of Calque about what was copied. All checks are always made, so
that a report says everything that is wrong at once.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

from hub.demo.load import LoadReport
from hub.demo.reading import Access, Contents, Preview, Row, contents
from hub.demo.writers import Bounds, History

_SHOWN = 3
_PREVIEWED_BYTES = 2048
# Parts of a binding that two runs never share; addresses differ between sites only.
_ADDRESSES = ("database address", "object store address")


class ProofFailedError(Exception):
    """A copy does not hold what it must; the message has one line for each failed check."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One statement about a copy, whether it holds, and what was found."""

    name: str
    passed: bool
    found: str

    def line(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.name}: {self.found}"


@dataclass(frozen=True, kw_only=True)
class ProofReport:
    """All checks of one copy, in the order they are told."""

    checks: tuple[Check, ...]
    fingerprint: str = ""
    """:meth:`hub.demo.reading.Contents.digest` of what was judged."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def lines(self) -> list[str]:
        """One line per check, for people."""
        return [check.line() for check in self.checks]

    def require(self) -> None:
        """Raises:
        ProofFailedError: a check failed.
        """
        failed = [check.line() for check in self.checks if not check.passed]
        if failed:
            raise ProofFailedError("\n".join(failed))


async def prove(
    *,
    access: Access,
    history: History,
    bounds: Sequence[Bounds],
    loaded: LoadReport | None = None,
    documents_over_http: int = 25,
) -> ProofReport:
    """Judge the running copy at ``access``.

    Args:
        access: where the copy and its data services are reached.
        history: what the writers did.
        bounds: what the copy owes each writer, from :meth:`History.bounds`.
        loaded: what was loaded before the writers began; all of it must be there.
        documents_over_http: how many documents are fetched through the application as well.

    Raises:
        UnreadableError: Postgres, the bucket or the volume cannot be read.
    """
    held = await contents(access)
    checks = judge(held, history=history, bounds=bounds, loaded=loaded)
    over_http = await _over_http(access, held, documents=documents_over_http)
    return ProofReport(checks=(*checks, *over_http), fingerprint=held.digest())


def judge(held: Contents, *, history: History, bounds: Sequence[Bounds], loaded: LoadReport | None) -> list[Check]:
    """The checks of what Postgres, the bucket and the volume hold."""
    by_writer: dict[str, list[Row]] = defaultdict(list)
    for row in held.rows:
        if row.writer is not None:
            by_writer[row.writer].append(row)
    checks = [
        _prefixes(by_writer, bounds),
        _at_least(by_writer, bounds),
        _at_most(by_writer, bounds),
        _as_written(by_writer, history),
        _documents(held),
    ]
    if held.previews is not None:
        checks.append(_volume(held, held.previews))
    if loaded is not None:
        checks.append(_loaded(held, loaded))
    return checks


def bindings_differ(one: Access, other: Access, *, same_site: bool) -> Check:
    """Whether two runs share no part of their bindings; at one site they share the servers' addresses."""
    mine, theirs = one.bindings(), other.bindings()
    names = [name for name in mine if not (same_site and name in _ADDRESSES)]
    shared = [name for name in names if mine[name] == theirs[name]]
    found = f"both use the same {', '.join(shared)}" if shared else f"{', '.join(names)} all differ"
    return Check(name="bindings were made anew", passed=not shared, found=found)


def _prefixes(by_writer: dict[str, list[Row]], bounds: Sequence[Bounds]) -> Check:
    faults = []
    for writer, rows in sorted(by_writer.items()):
        counted = Counter(row.seq for row in rows if row.seq is not None)
        missing = sorted(set(range(1, max(counted) + 1)) - set(counted))
        twice = sorted(seq for seq, times in counted.items() if times > 1)
        if missing:
            faults.append(f"{writer} lacks {_some(missing)} below its last, {max(counted)}")
        if twice:
            faults.append(f"{writer} has {_some(twice)} more than once")
    known = {each.writer for each in bounds}
    faults += [f"{writer} is no writer that was started" for writer in sorted(set(by_writer) - known)]
    lengths = ", ".join(f"{each.writer} 1..{len(by_writer[each.writer])}" for each in bounds)
    return _check("each writer is a gapless prefix", faults, lengths or "no writers")


def _at_least(by_writer: dict[str, list[Row]], bounds: Sequence[Bounds]) -> Check:
    faults = []
    for each in bounds:
        there = {row.seq for row in by_writer[each.writer]}
        missing = sorted(set(range(1, each.least + 1)) - there)
        if missing:
            faults.append(f"{each.writer} lacks {_some(missing)}, acknowledged before the save began")
    total = sum(each.least for each in bounds)
    return _check("all that was acknowledged before the save is there", faults, f"{total} writes")


def _at_most(by_writer: dict[str, list[Row]], bounds: Sequence[Bounds]) -> Check:
    faults = []
    for each in bounds:
        later = sorted(row.seq for row in by_writer[each.writer] if row.seq is not None and row.seq > each.most)
        if later:
            faults.append(f"{each.writer} has {_some(later)}, begun after the thaw")
    total = sum(len(by_writer[each.writer]) for each in bounds)
    return _check("nothing begun after the thaw is there", faults, f"{total} writes, none of them later")


def _as_written(by_writer: dict[str, list[Row]], history: History) -> Check:
    sent = history.digests()
    rows = [row for each in by_writer.values() for row in each]
    faults = [
        f"{row.writer} {row.seq} names a document that was never sent"
        for row in rows
        if row.writer is not None and row.seq is not None and sent.get((row.writer, row.seq)) != row.doc_digest
    ]
    return _check("the writers' ideas are as they were sent", faults, f"{len(rows)} digests equal the log's")


def _documents(held: Contents) -> Check:
    faults = []
    for row in held.rows:
        found = held.objects.get(row.doc_key)
        if found is None:
            faults.append(f"the document of {row.title!r} is missing")
        elif found != (row.doc_digest, row.doc_size):
            faults.append(f"the document of {row.title!r} is not the one its row names")
    spare = len(held.objects) - len({row.doc_key for row in held.rows} & set(held.objects))
    size = sum(length for _, length in held.objects.values())
    found_text = f"{len(held.rows)} documents read, {size / 1024**2:.1f} MiB, SHA-256 equal"
    if spare:
        found_text += f"; {spare} more that no idea names"
    return _check("every idea has its document", faults, found_text)


def _volume(held: Contents, previews: Mapping[str, Preview]) -> Check:
    """The application keeps a preview of each small document, drawn while its idea is written: so at every quiesced
    moment the two stores agree."""
    documents = {row.id: row.doc_digest for row in held.rows if row.doc_size <= _PREVIEWED_BYTES}
    faults = [f"the preview of idea {idea} is missing" for idea in documents if idea not in previews]
    faults += [f"there is a preview of {idea}, which is no idea" for idea in previews if idea not in documents]
    faults += [
        f"the preview of idea {idea} shows another document"
        for idea, preview in previews.items()
        if documents.get(idea, preview.document) != preview.document
    ]
    return _check("the volume has its preview of every small document", faults, f"{len(previews)} files, none too many")


def _loaded(held: Contents, loaded: LoadReport) -> Check:
    rows = [row for row in held.rows if row.writer is None]
    there = (len(rows), sum(row.doc_size for row in rows), sum(row.votes for row in rows))
    expected = (loaded.ideas, loaded.bytes, loaded.votes)
    words = "{} ideas, {} bytes of documents, {} votes"
    faults = [] if there == expected else [f"{words.format(*there)} instead of {words.format(*expected)}"]
    return _check("the loaded input is there", faults, words.format(*there))


async def _over_http(access: Access, held: Contents, *, documents: int) -> list[Check]:
    """The checks of what the application itself answers."""
    expected = {
        "count": len(held.rows),
        "votes": sum(row.votes for row in held.rows),
        "documents": len(held.rows),
        "bytes": sum(row.doc_size for row in held.rows),
    }
    # The same choice for the same copy: a failure can be looked at again.
    by_id = sorted(held.rows, key=lambda row: row.id)
    chosen = random.Random(0).sample(by_id, min(documents, len(by_id)))  # noqa: S311
    name = "the application answers the same over HTTP"
    try:
        async with aiohttp.ClientSession(base_url=access.url, timeout=aiohttp.ClientTimeout(total=30)) as session:
            faults = []
            async with session.get("/healthz") as answer:
                if answer.status != 200:
                    faults.append(f"its health check answers {answer.status}")
            async with session.get("/api/stats") as answer:
                stats = await answer.json()
            if stats != expected:
                faults.append(f"its figures are {stats}, its data {expected}")
            for row in chosen:
                async with session.get(f"/api/ideas/{row.id}/document") as answer:
                    content = await answer.read()
                if answer.status != 200 or hashlib.sha256(content).hexdigest() != row.doc_digest:
                    faults.append(f"it serves another document for {row.title!r} ({answer.status})")
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        faults = [f"it was not reached: {error!r}"]
    return [_check(name, faults, f"healthy, {len(held.rows)} ideas, {len(chosen)} documents compared")]


def _check(name: str, faults: Sequence[str], found: str) -> Check:
    more = f"; and {len(faults) - _SHOWN} more like these" if len(faults) > _SHOWN else ""
    return Check(name=name, passed=not faults, found="; ".join(faults[:_SHOWN]) + more if faults else found)


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:_SHOWN])
    return f"{shown} and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else shown
