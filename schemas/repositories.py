"""Questions about copy repositories: what is known of them, how full they are, and what lies there now."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.questions import Query, View
from schemas.registry import message

FoundStatus = Literal["known", "new", "untrusted", "incomplete", "damaged", "unmasked"]


class RepositoryView(Fact, frozen=True, kw_only=True):
    """A copy repository as the record tells of it. ``stored`` is the sum of what its copies take, in bytes; what
    copies have in common counts in each."""

    site: str
    name: str
    state: str
    copies: int = 0
    images: tuple[str, ...] = ()
    stored: int = 0
    signing_key: str = ""
    protocols: tuple[str, ...] = ()
    version: str = ""


@message("query.repositories")
class RepositoriesQuery(Query, frozen=True, kw_only=True):
    """Copy repositories, of one site or of all."""

    site: str | None = None


@message("view.repositories")
class RepositoriesView(View, frozen=True, kw_only=True):
    """Copy repositories by site and name."""

    repositories: tuple[RepositoryView, ...]


@message("query.repository")
class RepositoryQuery(Query, frozen=True, kw_only=True):
    """How full a repository is now, by its broker's own word."""

    site: str
    name: str


@message("rpc.repository")
class SiteRepositoryQuery(Query, frozen=True, kw_only=True):
    """How full a repository of this site is now."""

    name: str


@message("view.repository")
class RepositoryCondition(View, frozen=True, kw_only=True):
    """A repository now; sizes in bytes. ``free`` is what its store has left, ``staging`` what is being written.
    ``retention_seconds``: how long a copy that comes now is locked. ``locked`` of what is ``stored`` belong to
    ``locked_copies``, which can't be deleted now, the last of them until ``locked_until``."""

    site: str
    name: str
    healthy: bool
    message: str = ""
    copies: int = 0
    images: int = 0
    chunks: int = 0
    stored: int = 0
    staging: int = 0
    free: int = 0
    retention_seconds: float = 0.0
    locked_copies: int = 0
    locked: int = 0
    locked_until: str = ""


@message("query.scan")
class ScanQuery(Query, frozen=True, kw_only=True):
    """What lies in a repository now. Nothing is recorded."""

    site: str
    name: str


@message("rpc.scan")
class SiteScan(Query, frozen=True, kw_only=True):
    """What lies in a repository of this site now."""

    name: str


class ScannedImage(Fact, frozen=True, kw_only=True):
    """An image whose manifest lies in a repository. ``size`` in bytes.

    ``new`` ones are recorded at the next look or import; ``untrusted`` ones only when the key ``signer`` is trusted;
    ``incomplete`` ones lack copies, ``damaged`` ones hold others than the manifest says, ``unmasked`` ones come to a
    site that takes masked images only: ``message`` says which.
    """

    image: str
    status: FoundStatus
    signer: str
    app: str = ""
    template: str = ""
    site: str = ""
    saved_at: str = ""
    size: int = 0
    message: str = ""


@message("view.scan")
class ScanView(View, frozen=True, kw_only=True):
    """Images by id, at most a few hundred; ``unlisted`` says how many more there are. ``loose`` counts the copies that
    no image manifest names; ``vanished`` names copies that are on record and not there."""

    site: str
    name: str
    images: tuple[ScannedImage, ...]
    unlisted: int = 0
    loose: int = 0
    vanished: tuple[str, ...] = ()


@message("ask.signers")
class AskSigners(Query, frozen=True, kw_only=True):
    """Which of these keys (Ed25519, hex) are those of repositories of sites that joined the hub?"""

    keys: tuple[str, ...]


@message("view.signers")
class SignersView(View, frozen=True, kw_only=True):
    """Key -> the site whose repository signs with it; unknown ones are left out."""

    known: dict[str, str] = {}
