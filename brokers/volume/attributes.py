"""What is known about a file besides its bytes, as the metadata of an entry.

``type``, ``mode`` (octal), ``uid``, ``gid``, ``mtime`` (nanoseconds since the epoch); ``target`` of links; ``size``
and ``segments`` (``offset+length,...``) of a sparse file; ``xattr.<name>`` (base64) for extended attributes of
users and for POSIX access lists. ``seen`` of a regular file is what the file was when its bytes were read, so that a
later copy knows that they are still the same; nothing is restored from it.
"""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from collections.abc import Mapping, Sequence

from brokers.sdk.errors import permanent_error
from brokers.volume.inventory import Kind
from brokers.volume.linux import Segment
from brokers.volume.paths import WrongCopy, decode, encode

XATTR = "xattr."
SEEN = "seen"
MAX_BYTES = 768 << 10
"""What the metadata of one entry may take: a frame of a copy has to hold it."""

_ACCESS_LISTS = frozenset({"system.posix_acl_access", "system.posix_acl_default"})
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.ENODATA, errno.ENOSYS, errno.EACCES, errno.EPERM})
_MAX = 1 << 63


def known(info: os.stat_result, *, kind: Kind, xattrs: Mapping[str, bytes]) -> dict[str, str]:
    """The metadata of a file. Raises a permanent problem when it is too long."""
    metadata = {
        "type": kind,
        "mode": f"{stat.S_IMODE(info.st_mode):04o}",
        "uid": str(info.st_uid),
        "gid": str(info.st_gid),
        "mtime": str(info.st_mtime_ns),
    }
    for name, value in xattrs.items():
        metadata[XATTR + encode(os.fsencode(name))] = base64.b64encode(value).decode()
    if sum(len(name) + len(value) for name, value in metadata.items()) > MAX_BYTES:
        raise permanent_error("attributes_too_long", f"extended attributes have more than {MAX_BYTES} bytes together")
    return metadata


def seen(info: os.stat_result, *, boot: str) -> str:
    """What changes whenever somebody writes to a file, on one running machine. Size and time of the last change of the
    bytes stand in the metadata themselves."""
    return f"{boot[:8]}-{info.st_dev:x}-{info.st_ino:x}-{info.st_ctime_ns:x}"


def xattrs_of(where: int | str) -> dict[str, bytes]:
    """Extended attributes that belong to a copy, of an open file or of a path whose last link isn't followed."""
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NO_XATTRS:
            return {}
        raise
    found = {}
    for name in names:
        if name.startswith("user.") or name in _ACCESS_LISTS:
            try:
                found[name] = os.getxattr(where, name, follow_symlinks=follow)
            except OSError as error:
                if error.errno not in _NO_XATTRS:
                    raise
    return found


def sparse(segments: Sequence[Segment], *, size: int) -> dict[str, str]:
    """Metadata of where a file has data; nothing for one without holes."""
    if list(segments) == ([(0, size)] if size else []):
        return {}
    return {"size": str(size), "segments": ",".join(f"{offset}+{length}" for offset, length in segments)}


def segments_in(metadata: Mapping[str, str], *, size: int) -> tuple[int, list[Segment]]:
    """The size of a restored file and where its ``size`` bytes of data go. Raises :class:`WrongCopy`."""
    if "segments" not in metadata:
        return size, [(0, size)] if size else []
    whole, at = number(metadata, "size"), 0
    segments: list[Segment] = []
    for each in filter(None, metadata["segments"].split(",")):
        offset, _, length = each.partition("+")
        segments.append((_number(offset, "segments"), _number(length, "segments")))
    for start, count in segments:
        if start < at:
            raise WrongCopy("its segments overlap")
        at = start + count
    if at > whole or sum(count for _, count in segments) != size:
        raise WrongCopy("its segments don't fit its size")
    return whole, segments


def number(metadata: Mapping[str, str], name: str) -> int:
    """A number of the metadata. Raises :class:`WrongCopy`."""
    return _number(metadata.get(name, ""), name)


def mode_in(metadata: Mapping[str, str]) -> int:
    """The permission bits. Raises :class:`WrongCopy`."""
    try:
        mode = int(metadata["mode"], 8)
    except (KeyError, ValueError):
        raise WrongCopy("its mode is no octal number") from None
    if not 0 <= mode <= 0o7777:
        raise WrongCopy("its mode is out of range")
    return mode


def xattrs_in(metadata: Mapping[str, str]) -> dict[str, bytes]:
    """Extended attributes to be set. Raises :class:`WrongCopy` for those that don't belong to a copy."""
    found = {}
    for name, value in metadata.items():
        if not name.startswith(XATTR):
            continue
        plain = os.fsdecode(decode(name.removeprefix(XATTR)))
        if not (plain.startswith("user.") or plain in _ACCESS_LISTS):
            raise WrongCopy(f"the attribute {plain!r} does not belong to a copy")
        try:
            found[plain] = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise WrongCopy(f"the attribute {plain!r} is not base64") from None
    return found


def _number(text: str, name: str) -> int:
    negative = name == "mtime" and text.startswith("-")
    digits = text[1:] if negative else text
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20 and int(digits) < _MAX):
        raise WrongCopy(f"its {name} is no number")
    return -int(digits) if negative else int(digits)
