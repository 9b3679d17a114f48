"""Paths inside a tree as keys of a copy, and back. A key is text whatever bytes the path has.

A key is the path below the tree's root, its names joined by ``/``; the root itself is ``.``. Bytes that are not
UTF-8, characters that can't be printed, and ``%`` are written ``%XX``, byte by byte.
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

ROOT_KEY = "."
Parts = tuple[bytes, ...]


class WrongCopy(ValueError):
    """A copy holds what no tree of ours can hold; the message names the entry and says what is wrong."""


def encode(raw: bytes) -> str:
    """Any bytes as text."""
    text = raw.decode("utf-8", "surrogateescape")
    if text.isprintable() and "%" not in text:
        return text
    return "".join(each if each.isprintable() and each != "%" else _escaped(each) for each in text)


def decode(text: str) -> bytes:
    """The bytes that ``encode`` was given. Raises :class:`WrongCopy`."""
    try:
        return unquote_to_bytes(text)
    except ValueError as error:
        raise WrongCopy(f"{text!r} is no encoded name: {error}") from None


def key_of(parts: Parts) -> str:
    """The key of a path."""
    return encode(b"/".join(parts)) if parts else ROOT_KEY


def parts_of(key: str) -> Parts:
    """The names on the way to an entry. Raises :class:`WrongCopy` for a key that leads out of the tree."""
    if key == ROOT_KEY:
        return ()
    parts = tuple(decode(key).split(b"/"))
    if any(part in (b"", b".", b"..") or b"\0" in part for part in parts):
        raise WrongCopy(f"entry {key!r} is no path inside the tree")
    return parts


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))
