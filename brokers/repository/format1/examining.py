"""Looks whether a copy is whole, and whether the repository is: structure, a sample, or every byte."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from brokers.repository.errors import CopyNotFound, CorruptChunk, CorruptManifest, CorruptObject, CorruptPart
from brokers.repository.format1.catalog import Catalog
from brokers.repository.format1.commits import Commit, Commits
from brokers.repository.format1.packs import pack_name, read_trailer
from brokers.repository.format1.reading import Reader
from brokers.repository.format1.sealing import Keys
from brokers.repository.manifest import ChunkRef, Part
from brokers.repository.objects import ObjectStore
from brokers.repository.opened import Finding, Verification
from brokers.repository.partreader import all_chunks, read_events
from brokers.sdk.frames import Data

_LOOKED_UP = 500
"""How many chunks are looked up at once."""


class Examiner:
    """Checks copies of one repository against the store itself, whatever this process remembers."""

    def __init__(self, objects: ObjectStore, keys: Keys, catalog: Catalog, commits: Commits, reader: Reader) -> None:
        self._objects = objects
        self._keys = keys
        self._catalog = catalog
        self._commits = commits
        self._reader = reader

    def verify(self, copy: str, *, progress: Callable[[int], None], cancelled: Callable[[], bool]) -> Verification:
        """Reads all of the copy. Damage is in the answer. What is damaged is not relied upon by later copies: they
        write it anew, and with that heal this one. Raises CopyNotFound, CorruptManifest."""
        commit = self._commit(copy)
        findings = list(self._structure(copy, commit))
        checked = 0
        for part in self._commits.checked(copy, commit).parts:
            try:
                findings.extend(self._unkept(copy, part, commit))
                for event in read_events(part, self._reader.source(copy, part.name), copy=copy):
                    if isinstance(event, Data):
                        checked += len(event.data)
                        progress(checked)
                    if cancelled():
                        return Verification(copy, checked, (Finding("was cancelled"),))
            except (CorruptChunk, CorruptPart) as error:
                findings.append(Finding(str(error), part.name, error.chunk))
                self._set_aside(error.chunk)
        return Verification(copy, checked, tuple(findings))

    def sample(self, copy: str, *, choose: Callable[[ChunkRef], bool], cancelled: Callable[[], bool]) -> Verification:
        """Structure, and those chunks that `choose` says. Raises CopyNotFound, CorruptManifest."""
        commit = self._commit(copy)
        findings = list(self._structure(copy, commit))
        checked = 0
        for part in self._commits.checked(copy, commit).parts:
            source = self._reader.source(copy, part.name)
            try:
                findings.extend(self._unkept(copy, part, commit))
                for ref in all_chunks(part, source.one, copy=copy):
                    if choose(ref):
                        checked += len(source.one(ref))
                    if cancelled():
                        return Verification(copy, checked, (Finding("was cancelled"),))
            except (CorruptChunk, CorruptPart) as error:
                findings.append(Finding(str(error), part.name, error.chunk))
                self._set_aside(error.chunk)
        return Verification(copy, checked, tuple(findings))

    def _commit(self, copy: str) -> Commit:
        found = self._commits.of(copy, fresh=True)
        if not found:
            raise CopyNotFound("is not in this repository", copy=copy)
        for each in found:
            if each.commit is not None:
                return each.commit
        raise CorruptManifest(found[0].problem or "can't be read", copy=copy)

    def _structure(self, copy: str, commit: Commit) -> Iterator[Finding]:
        """Whether the packs that the copy needs are there, with sound frames."""
        for each in self._commits.of(copy, fresh=True):
            if each.problem is not None:
                yield Finding(each.problem)
        for pack in sorted(commit.pack_ids):
            found = self._objects.look(pack_name(pack))
            if found is None:
                yield Finding(f"copy {copy}: {pack_name(pack)} is missing")
                continue
            try:
                read_trailer(self._objects, self._keys, pack, size=found.size)
            except CorruptObject as error:
                yield Finding(f"copy {copy}: {error}")

    def _unkept(self, copy: str, part: Part, commit: Commit) -> Iterator[Finding]:
        """Whether each chunk of the part lies in one of the packs that the copy keeps: from others it may vanish.
        Raises CorruptChunk for one that lies nowhere."""
        kept = commit.pack_ids
        refs = all_chunks(part, self._reader.source(copy, part.name).one, copy=copy)
        while batch := list(itertools.islice(refs, _LOOKED_UP)):
            places = self._catalog.places_of({bytes.fromhex(ref.digest) for ref in batch})
            for ref in batch:
                found = places.get(bytes.fromhex(ref.digest))
                if found is None:
                    raise CorruptChunk("is missing", copy=copy, part=part.name, chunk=ref.digest)
                if not any(place.pack in kept for place in found):
                    message = f"copy {copy}, part {part.name}: chunk {ref.digest} lies in no pack that the copy keeps"
                    yield Finding(f"{message}; let the repository be repaired", part.name, ref.digest)
                    return

    def _set_aside(self, chunk: str | None) -> None:
        if chunk is None:
            return
        name = bytes.fromhex(chunk)
        for place in self._catalog.places(name):
            ref = ChunkRef(chunk, place.blob.size)
            for pack in self._reader.damaged_places(ref):
                self._catalog.forget_chunk(name, pack)
