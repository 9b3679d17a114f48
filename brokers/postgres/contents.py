"""The table of contents at the front of ``pg_dump``'s custom format (archive versions 1.14 to 1.16)."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

_MAGIC: Final = b"PGDMP"
_CUSTOM: Final = 1
_SECTIONS: Final = ("", "none", "pre-data", "data", "post-data")
_READ_BYTES: Final = 1 << 20


class Entry(NamedTuple):
    """One thing in the archive. ``kind`` is pg_dump's word for it (``TABLE``, ``INDEX``), ``statement`` what makes it,
    ``copy`` what fills it, ``needs`` the numbers of the entries that come before it."""

    number: int
    kind: str
    schema: str
    name: str
    section: str
    statement: str
    copy: str
    needs: tuple[int, ...]
    owner: str = ""


class Contents(list[Entry]):
    """All entries of an archive. ``server_version`` is that of the server that was dumped, ``16.14`` say; empty when
    the archive does not say."""

    server_version = ""


class Short(Exception):
    """Not enough has come yet."""


class NotUnderstood(Exception):
    """The archive is not what was expected, and why."""


class ArchiveReader:
    """Takes values from the front of what has come. They raise :class:`Short`."""

    def __init__(self, content: bytes | bytearray) -> None:
        self._content = content
        self.at = 0
        self.int_size = 4

    def take(self, size: int) -> bytes:
        """So many bytes."""
        end = self.at + size
        if end > len(self._content):
            raise Short
        taken = bytes(self._content[self.at : end])
        self.at = end
        return taken

    def byte(self) -> int:
        """A number of one byte."""
        return self.take(1)[0]

    def int(self) -> int:
        """A number as the archive writes it."""
        sign = self.byte()
        value = int.from_bytes(self.take(self.int_size), "little")
        return -value if sign else value

    def text(self) -> str | None:
        """A text, or that there is none."""
        size = self.int()
        return None if size < 0 else self.take(size).decode("utf-8", "surrogateescape")


def read_contents(reader: ArchiveReader) -> Contents:
    """All entries; ``reader`` is left behind them. Raises :class:`Short`, :class:`NotUnderstood`."""
    if reader.take(5) != _MAGIC:
        raise NotUnderstood("it does not begin as one")
    major, minor, _ = reader.take(3)
    if major != 1 or not 14 <= minor <= 16:
        raise NotUnderstood(f"its version is {major}.{minor}")
    reader.int_size, offset_size = reader.byte(), reader.byte()
    if reader.byte() != _CUSTOM:
        raise NotUnderstood("it is not in the custom format")
    compressed = reader.byte() if minor >= 15 else reader.int()
    if compressed:
        raise NotUnderstood("it is compressed")
    for _ in range(7):  # the time of the dump
        reader.int()
    reader.text()  # the database
    entries = Contents()
    entries.server_version = reader.text() or ""
    reader.text()  # pg_dump's
    section = ""
    for _ in range(reader.int()):
        entry = _entry(reader, minor=minor, offset_size=offset_size)
        if entry.section == "none":  # comments and grants belong to what they stand behind
            entry = entry._replace(section=section)
        section = entry.section
        entries.append(entry)
    return entries


def _entry(reader: ArchiveReader, *, minor: int, offset_size: int) -> Entry:
    number, _ = reader.int(), reader.int()
    _, _, name, kind = (reader.text() for _ in range(4))
    section = reader.int()
    statement, _, copy, schema, _, _ = (reader.text() for _ in range(6))
    if minor >= 16:
        reader.int()
    owner = reader.text()
    reader.text()
    needs: list[int] = []
    while (need := reader.text()) is not None:
        needs.append(int(need))
    reader.take(1 + offset_size)
    return Entry(
        number=number,
        kind=kind or "",
        schema=schema or "",
        name=name or "",
        section=_SECTIONS[section] if 0 <= section < len(_SECTIONS) else "",
        statement=statement or "",
        copy=copy or "",
        needs=tuple(needs),
        owner=owner or "",
    )


def contents_of(path: Path) -> Contents:
    """The entries of an archive in a file. Raises :class:`NotUnderstood`, OSError."""
    with path.open("rb") as file:
        head = bytearray()
        while block := file.read(_READ_BYTES):
            head += block
            try:
                return read_contents(ArchiveReader(head))
            except Short:
                continue
    raise NotUnderstood("it was cut short")
