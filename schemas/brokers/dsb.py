"""Requests to data service brokers: what they offer, data services, bindings, copies."""

from __future__ import annotations

from typing import Literal

from schemas.base import Fact
from schemas.brokers.every import Change, Reply, Request
from schemas.masking import Masked, Masking, MaskingOrder
from schemas.problems import Problem
from schemas.registry import message
from schemas.secrets import Secret
from schemas.values import (
    Channel,
    CopyPart,
    DataServiceType,
    Level,
    Plan,
)


@message("reply.dsb.info")
class DsbInfo(Reply, frozen=True, kw_only=True):
    """``attributes`` and ``secret_attributes`` are the names that bindings offer to templates.

    ``can_attach``: data services that were there before may be bound and copied through it. ``limits`` says in words
    what it can't do here, such as for want of privileges. ``can_mask``: it masks copies as their data leaves.
    """

    name: str
    version: str
    types: tuple[DataServiceType, ...]
    plans: tuple[Plan, ...]
    attributes: tuple[str, ...]
    secret_attributes: tuple[str, ...]
    protocols: tuple[str, ...]
    copy_formats: tuple[str, ...]
    engine: str = ""
    engine_version: str = ""
    can_attach: bool = False
    limits: tuple[str, ...] = ()
    can_mask: bool = False


class CopyGrant(Fact, frozen=True, kw_only=True):
    """Access to one copy in a repository over HTTPS, for one purpose and a limited time.

    ``url`` is the base of the copy's resources (``<url>/parts/<part>``, ``<url>/manifest``, ``<url>/chunks``).
    ``ca`` is the PEM of the authority to trust; ``fingerprint`` the SHA-256 (hex) of the server's certificate,
    which is pinned. ``client_fingerprint``, when set, is the only client certificate that may use the grant.
    ``parent``, for writing: the copy whose entries may be kept instead of sent again, empty when there is none.
    ``bytes_per_second`` is how fast its bytes may go at most, 0 for no limit. ``near`` names the repository to brokers
    on the same machine, which need no TLS to reach it (`brokers.sdk.near`); empty where there is no such way.
    """

    copy: str
    purpose: Literal["read", "write"]
    url: str
    token: Secret
    fingerprint: str
    ca: str
    expires_at: str
    client_fingerprint: str | None = None
    protocol: str = "http"
    parent: str = ""
    bytes_per_second: int = 0
    near: str = ""


class Existing(Fact, frozen=True, kw_only=True):
    """A data service that was there before and belongs to the user: where it is, and the secret that opens it.

    Brokers keep nothing of it beyond a prepared moment, and never change, overwrite or remove it: there is no request
    that could ask for that, since ``provision``, ``deprovision`` and ``unbind`` can't name one.
    """

    url: str
    secret: Secret | None = None


@message("request.dsb.attach")
class Attach(Change, frozen=True, kw_only=True):
    """Can this existing data service be reached, bound and copied? Changes nothing and keeps nothing. Long.

    What is missing for a copy, such as a privilege, is named before anything starts.
    """

    service_id: str
    type: DataServiceType
    existing: Existing
    labels: dict[str, str] = {}


@message("reply.dsb.attach")
class Attachable(Reply, frozen=True, kw_only=True):
    """Where and what it is, without secrets."""

    resource: dict[str, str]


@message("request.dsb.provision")
class Provision(Change, frozen=True, kw_only=True):
    """Make a data service, blank or - with ``restore`` and ``copy_format`` - from a copy. Long.

    ``service_id`` is unique over all sites and times and the key of everything else; ``labels`` mark what is
    made as ours (instance, instance_name, data_service).
    """

    service_id: str
    type: DataServiceType
    plan: str
    parameters: dict[str, str] = {}
    labels: dict[str, str] = {}
    restore: CopyGrant | None = None
    copy_format: str | None = None


@message("reply.dsb.provision")
class Provisioned(Reply, frozen=True, kw_only=True):
    """Where and what it is, without secrets. ``method`` says how a copy became a data service, where a broker knows
    more than one way: ``logical``, ``physical``, or at once from a kept idle copy by ``reflink`` or ``file copy``."""

    resource: dict[str, str]
    restored_bytes: int = 0
    method: str = ""


@message("request.dsb.deprovision")
class Deprovision(Change, frozen=True, kw_only=True):
    """Remove the data service with its data, its bindings and its prepared copies. Unknown is done. Long."""

    service_id: str


@message("request.dsb.bind")
class Bind(Change, frozen=True, kw_only=True):
    """Make credentials for one binding. The broker uses the proposed ``secret`` as password or secret key, or
    derives them from it, so that a repeated request gives the same credentials.

    For a data service of type messaging there is one binding per app service: ``app_service`` says which, and
    ``channel`` what it may send and receive; without it, nothing. An ``existing`` service's own credentials are
    handed through, and the proposed secret is not used.
    """

    service_id: str
    binding_id: str
    secret: Secret
    app_service: str = ""
    channel: Channel | None = None
    existing: Existing | None = None


@message("reply.dsb.bind")
class Bound(Reply, frozen=True, kw_only=True):
    """The binding: plain ``attributes`` and secret ones (``password``, ``uri``, ``secret_key``, ...)."""

    attributes: dict[str, str]
    secrets: dict[str, Secret]


@message("request.dsb.unbind")
class Unbind(Change, frozen=True, kw_only=True):
    """Remove the credentials of one binding. Unknown is done."""

    service_id: str
    binding_id: str


@message("request.dsb.stage_copy")
class StageCopy(Change, frozen=True, kw_only=True):
    """Copy ahead what can be copied before the moment is fixed. Long; may do nothing.

    With ``masking`` nothing may be copied ahead that is not masked. What speaks against these rules, as far as that
    can be told before the copy, is said here: nobody waits yet.

    ``grant`` says where the copy will be written, as far as that is known now: what is copied ahead may go there. It
    is no part of the copy until ``copy`` says so; ``copy`` comes with a grant of its own, and may come with one for
    another repository. Without a grant, which is never an error, a broker copies ahead to where it can, or not at all.
    """

    service_id: str
    copy: str
    existing: Existing | None = None
    masking: Masking | None = None
    grant: CopyGrant | None = None


@message("request.dsb.prepare_copy")
class PrepareCopy(Change, frozen=True, kw_only=True):
    """Fix the copy's moment and return. The prepared moment is dropped by itself after ``hold_seconds``.

    Again with the same copy while the moment is held: the same answer. When the moment was lost (the broker
    restarted): the permanent problem ``moment_lost``, never a new moment. With ``masking`` the copy will be masked.
    """

    service_id: str
    copy: str
    hold_seconds: float = 600.0
    existing: Existing | None = None
    masking: Masking | None = None


@message("reply.dsb.prepare_copy")
class Prepared(Reply, frozen=True, kw_only=True):
    """``moment`` names the point in the technology's own words; ``level`` is the best the broker can vouch for
    given quiesced writers: ``application`` when one moment covers the whole service, ``crash`` when not. ``left_out``
    says in words what of the service the copy won't have, one sentence for each kind of thing."""

    moment: str
    level: Level = "application"
    estimated_bytes: int | None = None
    left_out: tuple[str, ...] = ()


@message("request.dsb.copy")
class CopyData(Change, frozen=True, kw_only=True):
    """Stream the copy from its prepared moment to the repository behind ``grant``. Long.

    With ``masking`` the data is masked as it leaves its source, and the reply says by what; data that the rules say
    nothing of may not leave unmasked when they say so.
    """

    service_id: str
    copy: str
    grant: CopyGrant
    existing: Existing | None = None
    masking: MaskingOrder | None = None


@message("reply.dsb.copy")
class Copied(Reply, frozen=True, kw_only=True):
    """What was written: parts as the repository confirmed them, and what the manifest should say of it. ``method`` says
    how it was copied, where a broker knows more than one way: ``logical`` or ``physical``."""

    copy_format: str
    parts: tuple[CopyPart, ...]
    engine: str = ""
    engine_version: str = ""
    masked: Masked | None = None
    method: str = ""


@message("request.dsb.discard_copy")
class DiscardCopy(Change, frozen=True, kw_only=True):
    """Let go of the prepared moment and whatever was staged. Unknown is done."""

    copy: str


@message("request.dsb.preview_masking")
class PreviewMasking(Request, frozen=True, kw_only=True):
    """What would these rules do? Nothing is stored. ``rows`` of each table that they change are shown masked, with
    ``before`` also as they are."""

    service_id: str
    masking: MaskingOrder
    rows: int = 0
    before: bool = False
    existing: Existing | None = None


class ClassifiedColumn(Fact, frozen=True, kw_only=True):
    """A column, and the ``rule`` (its left side) that says what becomes of it; empty when none does."""

    table: str
    column: str
    type: str
    rule: str = ""
    transformer: str = ""


class MaskedRows(Fact, frozen=True, kw_only=True):
    """Some rows of a table: the masked columns, ``before`` (if that was asked for) and ``after``; ``None`` is NULL."""

    table: str
    columns: tuple[str, ...]
    after: tuple[tuple[str | None, ...], ...] = ()
    before: tuple[tuple[str | None, ...], ...] = ()


class TableShare(Fact, frozen=True, kw_only=True):
    """How many of the ``rows`` of a table are ``kept`` where rules say how much is. ``rule`` is the left side of the
    one that speaks of it; empty where rows are left out only for what they refer to."""

    table: str
    rows: int
    kept: int
    rule: str = ""


@message("reply.dsb.preview_masking")
class MaskingPreview(Reply, frozen=True, kw_only=True):
    """``unused`` are the rules that fit nothing, ``problems`` what would refuse a copy, ``notes`` what is worth to be
    known before. ``tables`` are those of which not all rows are kept."""

    columns: tuple[ClassifiedColumn, ...] = ()
    unused: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    rows: tuple[MaskedRows, ...] = ()
    tables: tuple[TableShare, ...] = ()


@message("request.dsb.describe")
class DescribeDataServices(Request, frozen=True, kw_only=True):
    """What of ours is there: one service, or all that carry our labels."""

    service_id: str | None = None


class ResourceDescription(Fact, frozen=True, kw_only=True):
    """One thing that a broker made (database, role, bucket, process ...), with our labels."""

    id: str
    kind: str
    name: str
    labels: dict[str, str] = {}
    size: int | None = None


@message("reply.dsb.describe")
class DataServicesDescription(Reply, frozen=True, kw_only=True):
    """All resources found."""

    resources: tuple[ResourceDescription, ...]


@message("request.dsb.health")
class DataServiceHealth(Request, frozen=True, kw_only=True):
    """Is the data service well? Without a ``service_id``: the broker's technology itself."""

    service_id: str | None = None
    existing: Existing | None = None
