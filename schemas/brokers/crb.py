"""Requests to copy repositories: copies, images, grants, upkeep."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.brokers.dsb import Copied, CopyGrant
from schemas.brokers.every import Change, Reply, Request
from schemas.registry import message
from schemas.values import (
    CopySummary,
    DataServiceType,
    ImageContent,
    Level,
)


@message("reply.crb.info")
class CrbInfo(Reply, frozen=True, kw_only=True):
    """``fingerprint`` is the SHA-256 (hex) of the certificate that the repository serves and fetches with,
    ``signing_key`` the key (Ed25519, hex) that it signs manifests with. ``retention_seconds``: how long a copy that is
    committed now is locked."""

    name: str
    version: str
    repositories: tuple[str, ...]
    protocols: tuple[str, ...]
    fingerprint: str
    format: int = 0
    signing_key: str = ""
    retention_seconds: float = 0.0


@message("request.crb.repositories")
class RepositoriesRequest(Request, frozen=True, kw_only=True):
    """Which repositories are there?"""


@message("reply.crb.repositories")
class Repositories(Reply, frozen=True, kw_only=True):
    """Names of repositories."""

    repositories: tuple[str, ...]


class CopySource(Fact, frozen=True, kw_only=True):
    """What a manifest says about where a copy comes from. No secrets."""

    site: str
    instance: str
    instance_name: str
    data_service: str
    type: DataServiceType
    broker: str
    image: str
    data_class: str = "restricted"


@message("request.crb.open_write")
class OpenWrite(Change, frozen=True, kw_only=True):
    """Begin (or resume) a copy. Answers a write grant; its token lives for ``ttl_seconds``.

    ``parent`` is the copy before of the same data service: its entries may be kept instead of sent again, and the
    manifest names it. One that is not committed here is ignored; the grant says which parent counts.
    """

    copy: str
    source: CopySource
    ttl_seconds: float = 3600.0
    parent: str = ""


@message("reply.crb.grant")
class Granted(Reply, frozen=True, kw_only=True):
    """A grant. It holds a secret and travels in request traffic only."""

    grant: CopyGrant


@message("request.crb.commit")
class CommitCopy(Change, frozen=True, kw_only=True):
    """Write the manifest: from here on the copy exists. Idempotent; the same answer for ever. Long.

    The parts must be those that the repository received, digests and sizes equal, else ``parts_differ``.
    """

    copy: str
    copied: Copied
    moment: str
    level: Level


@message("reply.crb.commit")
class Committed(Reply, frozen=True, kw_only=True):
    """The copy as it is stored and verified."""

    summary: CopySummary


@message("request.crb.abort")
class AbortCopy(Change, frozen=True, kw_only=True):
    """Remove a copy that was not committed. Unknown is done; a committed one is the problem ``conflict``."""

    copy: str


@message("request.crb.open_read")
class OpenRead(Request, frozen=True, kw_only=True):
    """A read grant for a committed copy; ``client_fingerprint`` binds it to a peer's certificate."""

    copy: str
    ttl_seconds: float = 900.0
    client_fingerprint: str | None = None


@message("request.crb.list")
class ListCopies(Request, frozen=True, kw_only=True):
    """Which committed copies are there? With the token of an earlier answer as ``known``, only whether that changed."""

    known: str = ""


@message("reply.crb.list")
class CopyList(Reply, frozen=True, kw_only=True):
    """Summaries of all committed copies. ``token`` changes as soon as copies or images appear or vanish; ``unchanged``
    when it is the one that the request named, and then nothing is listed."""

    copies: tuple[CopySummary, ...]
    token: str = ""
    unchanged: bool = False


@message("request.crb.images")
class ListImages(Request, frozen=True, kw_only=True):
    """The signed manifests of images that lie here, by image id, at most ``limit`` behind the id ``after``. With the
    token of an earlier answer (also of ``list``) as ``known``, only whether that changed."""

    known: str = ""
    after: str = ""
    limit: int = 20


class ListedImage(Fact, frozen=True, kw_only=True):
    """An image manifest; ``signed_by`` is the key (Ed25519, hex) whose signature over it holds."""

    content: ImageContent
    signed_by: str


@message("reply.crb.images")
class ImageList(Reply, frozen=True, kw_only=True):
    """Image manifests whose signature holds; ``more`` when there are others behind the last. ``token`` and
    ``unchanged`` are as in the answer of ``list``."""

    images: tuple[ListedImage, ...]
    token: str = ""
    unchanged: bool = False
    more: bool = False


@message("request.crb.describe")
class DescribeCopy(Request, frozen=True, kw_only=True):
    """One committed copy."""

    copy: str


@message("reply.crb.describe")
class CopyDescription(Reply, frozen=True, kw_only=True):
    """A committed copy and where it comes from. ``parent`` is the copy that it was taken on top of, if any."""

    summary: CopySummary
    source: CopySource
    copied: Copied
    moment: str
    level: Level
    created_at: str
    parent: str = ""


@message("request.crb.verify")
class VerifyCopy(Change, frozen=True, kw_only=True):
    """Read all of a copy and compare every digest; or only a ``sample``, or only the ``structure`` that says where its
    data lies. Long."""

    copy: str
    depth: Literal["all", "sample", "structure"] = "all"


@message("reply.crb.verify")
class Verified(Reply, frozen=True, kw_only=True):
    """``faults`` names what is wrong; empty when the copy is sound."""

    copy: str
    faults: tuple[str, ...] = ()


@message("request.crb.delete")
class DeleteCopy(Change, frozen=True, kw_only=True):
    """Delete a copy, and the chunks that no other copy needs. Unknown is done; one that is locked is the problem
    ``locked``, unless ``operation`` is the one that committed it. Long."""

    copy: str


@message("request.crb.transfer")
class TransferCopy(Change, frozen=True, kw_only=True):
    """Fetch a copy from another repository with its grant, only what is missing here, and commit it. Long.

    The result is :class:`Committed`.
    """

    copy: str
    grant: CopyGrant


@message("request.crb.record_image")
class RecordImage(Change, frozen=True, kw_only=True):
    """Keep the signed manifest of an image beside its copies."""

    content: ImageContent


@message("request.crb.forget_image")
class ForgetImage(Change, frozen=True, kw_only=True):
    """Remove the manifest of an image. Unknown is done; one whose copies are locked here is the problem ``locked``,
    unless ``operation`` committed them."""

    image: str


@message("request.crb.collect")
class Collect(Change, frozen=True, kw_only=True):
    """Remove unreferenced data. Long."""


@message("reply.crb.collect")
class Collected(Reply, frozen=True, kw_only=True):
    """What was removed."""

    chunks: int
    bytes: int


@message("request.crb.repair")
class RepairRepository(Change, frozen=True, kw_only=True):
    """Make lost indexes anew, give copies sound data for damaged where the repository has it, name what can't be
    repaired. With ``read_all`` every byte is read before; else what earlier checks found counts. Long."""

    read_all: bool = False


@message("reply.crb.repair")
class RepositoryRepaired(Reply, frozen=True, kw_only=True):
    """How many damaged ``indexes`` were removed and made anew, which copies were ``healed``, and what is still
    ``damaged``, one line each."""

    indexes: int = 0
    healed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


@message("request.crb.stats")
class StatsRequest(Request, frozen=True, kw_only=True):
    """How full is it?"""


@message("reply.crb.stats")
class RepositoryStats(Reply, frozen=True, kw_only=True):
    """Sizes in bytes; ``free`` is what its file system has left. ``locked`` of what is ``stored`` belong to
    ``locked_copies``, which can't be deleted now; the last of these locks ends at ``locked_until`` (RFC 3339, UTC)."""

    copies: int
    images: int
    chunks: int
    stored: int
    free: int
    staging: int = 0
    retention_seconds: float = 0.0
    locked_copies: int = 0
    locked: int = 0
    locked_until: str = ""
