"""What S3 says in XML: pages of listings, tags, uploads, errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree as Xml

Body = bytes | bytearray
MANGLED = "\ufffd"
"""What stands for a character that XML can't hold, in a listing whose keys are not quoted."""
_DIGITS = 20
_ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_LISTING = re.compile(r"List\w*Result")


class Unreadable(ValueError):
    """An answer of S3 that says nothing we understand, though it came whole."""


class Version(NamedTuple):
    """The newest version of one object. ``version`` is ``null`` for one that was made while the bucket kept none, and
    empty in a bucket that keeps none now: then ``etag`` tells whether it is still the same. ``modified`` is as the
    server spells it. ``archive`` is the storage class of what can't be read as it is."""

    key: str
    version: str
    size: int
    etag: str = ""
    modified: str = ""
    archive: str = ""

    @property
    def query(self) -> dict[str, str]:
        """How a request names this version."""
        return {"versionId": self.version} if self.kept else {}

    @property
    def kept(self) -> bool:
        """Whether it stays as it is when somebody overwrites the object."""
        return self.version != ""

    @property
    def mark(self) -> str:
        """What is another one when the object was written again."""
        return f"{self.version} {self.etag} {self.modified}"


def following_page(body: Body) -> dict[str, str]:
    """What the next page of a listing is asked for with; empty when this is the last. Without reading it through."""
    if _field(body, b"IsTruncated") != "true":
        return {}
    if token := _field(body, b"NextContinuationToken"):
        return {"continuation-token": token}
    marker = _field(body, b"NextKeyMarker")
    quoted = _field(body, b"EncodingType") == "url"
    following = {"key-marker": unquote_plus(marker) if quoted else marker}
    if version := _field(body, b"NextVersionIdMarker"):
        following["version-id-marker"] = version
    return following


def versions_page(body: Body) -> list[Version]:
    """A page of ListObjectVersions: the newest versions alone, none of deleted objects. Raises Unreadable."""
    root = _listing(body)
    quoted = _text(root, "EncodingType") == "url"
    lines = (_line(each, quoted=quoted) for each in _all(root, "Version"))
    return [_version(line, line.get("VersionId") or "null") for line in lines if line.get("IsLatest") == "true"]


def objects_page(body: Body) -> list[Version]:
    """A page of ListObjectsV2. Raises Unreadable."""
    root = _listing(body)
    quoted = _text(root, "EncodingType") == "url"
    return [_version(_line(each, quoted=quoted), "") for each in _all(root, "Contents")]


def tags_of(body: Body) -> list[tuple[str, str]]:
    """The tags of an object."""
    return [(_text(tag, "Key"), _text(tag, "Value")) for each in _all(_parsed(body), "TagSet") for tag in each]


def upload_id(body: Body) -> str:
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


def archive_of(storage_class: str) -> str:
    """The storage class, if it is one whose objects have to be brought back before they are read."""
    return storage_class if storage_class in _ARCHIVES else ""


def restore_request(*, days: int, tier: str) -> bytes:
    """What asks for an archived object to be brought back for some days."""
    root = Xml.Element("RestoreRequest", xmlns=_NAMESPACE)
    Xml.SubElement(root, "Days").text = str(days)
    Xml.SubElement(Xml.SubElement(root, "GlacierJobParameters"), "Tier").text = tier
    return Xml.tostring(root)


def error_of(body: Body) -> tuple[str, str]:
    """Code and message of an error; empty where the body says none."""
    try:
        root = _parsed(body)
    except Unreadable:
        return "", ""
    return _text(root, "Code"), _text(root, "Message")


def sorted_by_key(versions: list[Version]) -> list[Version]:
    """In the order in which entries are stored; servers list in others."""
    versions.sort(key=lambda version: version.key)
    return versions


def _parsed(body: Body) -> Xml.Element:
    try:
        return Xml.fromstring(bytes(body))  # noqa: S314 - expat itself refuses what grows when it is read
    except (Xml.ParseError, LookupError, ValueError) as error:
        raise Unreadable(f"an answer of S3 can't be read: {error}") from error


def _listing(body: Body) -> Xml.Element:
    """The root of a page. What is none must not look like an empty bucket."""
    root = _parsed(body)
    if _LISTING.fullmatch(root.tag.rpartition("}")[2]) is None:
        raise Unreadable(f"a listing of S3 is none: it begins with {root.tag[:80]!r}")
    return root


def _field(body: Body, name: bytes) -> str:
    """The text of an element that a page has once, outside its lines."""
    found = re.search(b"<" + name + b">([^<]*)</", body)
    return unescape(found[1].decode(errors="replace")) if found else ""


def _all(root: Xml.Element, name: str) -> Iterator[Xml.Element]:
    # With and without the namespace that Amazon's own answers have.
    return (each for each in root if each.tag.rpartition("}")[2] == name)


def _text(element: Xml.Element, name: str) -> str:
    return next((each.text or "" for each in _all(element, name)), "")


def _line(element: Xml.Element, *, quoted: bool) -> dict[str, str]:
    """The fields of an object, in one pass: listings are long."""
    fields = {each.tag.rpartition("}")[2]: each.text or "" for each in element}
    if not fields.get("Key"):
        raise Unreadable("a listing of S3 has an object without a key")
    if quoted:
        fields["Key"] = unquote_plus(fields["Key"])
    return fields


def _version(fields: dict[str, str], version: str) -> Version:
    size = fields.get("Size", "0")
    if not (size.isascii() and size.isdigit() and len(size) < _DIGITS):
        raise Unreadable(f"a listing of S3 has an object of size {size[:40]}")
    return Version(
        fields["Key"],
        version,
        int(size),
        fields.get("ETag", ""),
        fields.get("LastModified", ""),
        archive_of(fields.get("StorageClass", "")),
    )
