"""What an object carries beside its bytes, as metadata of an entry, and back as headers.

The headers that S3 keeps for an object stand under their own names, what users attach under names in small letters as
S3 gives them. What begins with a colon is neither: no header is called so. Access lists, storage classes, encryption
by the server, and locks belong to the bucket that an object lies in, and are not taken along: an instance could not be
deleted while its objects are retained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

MARK = ":mark"
"""What the object was when it was read (:attr:`brokers.s3.pages.Version.mark`). Not restored."""
TAGS = ":tags"
"""Its tags, as a query string."""
_USERS = "x-amz-meta-"
_HEADERS = {
    "content-type": "Content-Type",
    "content-encoding": "Content-Encoding",
    "content-language": "Content-Language",
    "content-disposition": "Content-Disposition",
    "cache-control": "Cache-Control",
    "expires": "Expires",
    "x-amz-website-redirect-location": "Website-Redirect-Location",
}
_NAMES = {name: header for header, name in _HEADERS.items()}
_TRANSFER = "aws-chunked"


def of_answer(headers: Mapping[str, str]) -> dict[str, str]:
    """The metadata that the headers of an answer tell. Names of headers are in small letters."""
    found: dict[str, str] = {}
    for header, value in headers.items():
        if header in _HEADERS:
            found[_HEADERS[header]] = value
        elif header.startswith(_USERS):
            found[header[len(_USERS) :]] = value
    if _TRANSFER in found.get("Content-Encoding", ""):
        # How it travelled when it was put; some servers keep that too.
        codings = [each.strip() for each in found.pop("Content-Encoding").split(",")]
        if left := [each for each in codings if each != _TRANSFER]:
            found["Content-Encoding"] = ",".join(left)
    return found


def etag_of(metadata: Mapping[str, str]) -> str:
    """The ETag that the object had; empty when nobody noted it."""
    said = metadata.get(MARK, "").split(" ")
    return said[1] if len(said) > 1 else ""


def to_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """The headers with which an object is put."""
    found: dict[str, str] = {}
    for name, value in metadata.items():
        if name == TAGS:
            found["x-amz-tagging"] = value
        elif header := _NAMES.get(name):
            found[header] = value
        elif not name.startswith(":"):
            found[_USERS + name.lower()] = value
    return found


def tagged(tags: Sequence[tuple[str, str]]) -> str:
    """Tags as a query string."""
    return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in tags)
