"""What S3 says in XML: pages of listings, tags, uploads, errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree as Xml

MANGLED = "\ufffd"
"""What stands for a character that XML can't hold, in a listing whose keys are not quoted."""


class Version(NamedTuple):
    """The newest version of one object. ``version`` is ``null`` for one that was made while the bucket kept none, and
    empty in a bucket that keeps none now: then ``etag`` tells whether it is still the same. ``modified`` is as the
    server spells it."""

    key: str
    version: str
    size: int
    etag: str = ""
    modified: str = ""

    @property
    def kept(self) -> bool:
        """Whether it stays as it is when somebody overwrites the object."""
        return self.version != ""

    @property
    def mark(self) -> str:
        """What is another one when the object was written again."""
        return f"{self.version} {self.etag} {self.modified}"


class Page(NamedTuple):
    """Some lines of a listing, and what to ask for the next page with; empty when this is the last."""

    versions: list[Version]
    following: dict[str, str]


def versions_page(body: bytes | bytearray) -> Page:
    """A page of ListObjectVersions: the newest versions alone, none of deleted objects."""
    root = _parsed(body)
    quoted = _text(root, "EncodingType") == "url"
    lines = (_line(each, quoted=quoted) for each in _all(root, "Version"))
    found = [_version(line, line.get("VersionId") or "null") for line in lines if line.get("IsLatest") == "true"]
    following: dict[str, str] = {}
    if _text(root, "IsTruncated") == "true":
        marker = _text(root, "NextKeyMarker")
        following = {"key-marker": unquote_plus(marker) if quoted else marker}
        if version := _text(root, "NextVersionIdMarker"):
            following["version-id-marker"] = version
    return Page(found, following)


def objects_page(body: bytes | bytearray) -> Page:
    """A page of ListObjectsV2."""
    root = _parsed(body)
    quoted = _text(root, "EncodingType") == "url"
    found = [_version(_line(each, quoted=quoted), "") for each in _all(root, "Contents")]
    more = _text(root, "IsTruncated") == "true"
    return Page(found, {"continuation-token": _text(root, "NextContinuationToken")} if more else {})


def tags_of(body: bytes | bytearray) -> list[tuple[str, str]]:
    """The tags of an object."""
    return [(_text(tag, "Key"), _text(tag, "Value")) for each in _all(_parsed(body), "TagSet") for tag in each]


def upload_id(body: bytes | bytearray) -> str:
    """The id of an upload that was begun."""
    return _text(_parsed(body), "UploadId")


def parts_of(tags: Sequence[str]) -> bytes:
    """What completes an upload: the tags of its parts in order."""
    root = Xml.Element("CompleteMultipartUpload")
    for number, tag in enumerate(tags, start=1):
        part = Xml.SubElement(root, "Part")
        Xml.SubElement(part, "PartNumber").text = str(number)
        Xml.SubElement(part, "ETag").text = tag
    return Xml.tostring(root)


def error_of(body: bytes) -> tuple[str, str]:
    """Code and message of an error; empty where the body says none."""
    try:
        root = _parsed(body)
    except ValueError:
        return "", ""
    return _text(root, "Code"), _text(root, "Message")


def sorted_by_key(versions: list[Version]) -> list[Version]:
    """In the order in which entries are stored; servers list in others."""
    versions.sort(key=lambda version: version.key)
    return versions


def _parsed(body: bytes | bytearray) -> Xml.Element:
    try:
        return Xml.fromstring(bytes(body))  # noqa: S314 - expat itself refuses what grows when it is read
    except Xml.ParseError as error:
        raise ValueError(f"an answer of S3 can't be read: {error}") from error


def _all(root: Xml.Element, name: str) -> Iterator[Xml.Element]:
    # With and without the namespace that Amazon's own answers have.
    return (each for each in root if each.tag.rpartition("}")[2] == name)


def _text(element: Xml.Element, name: str) -> str:
    return next((each.text or "" for each in _all(element, name)), "")


def _line(element: Xml.Element, *, quoted: bool) -> dict[str, str]:
    """The fields of an object, in one pass: listings are long."""
    fields = {each.tag.rpartition("}")[2]: each.text or "" for each in element}
    if quoted:
        fields["Key"] = unquote_plus(fields["Key"])
    return fields


def _version(fields: dict[str, str], version: str) -> Version:
    size = int(fields.get("Size", "0"))
    return Version(fields["Key"], version, size, fields.get("ETag", ""), fields.get("LastModified", ""))
