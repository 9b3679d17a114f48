"""Requests to brokers and their replies (design, section 5).

A request goes to ``calque.req.<site>.<kind>.<broker>.<operation>`` in an envelope whose type is
``calque.request.<kind>.<operation>.v1``; the reply's type is ``calque.reply.<kind>.<operation>.v1``, or
``calque.problem.v1`` with the headers ``Nats-Service-Error`` and ``Nats-Service-Error-Code`` of ADR-32.

Every operation that changes something carries an ``id`` and is idempotent by it. *Long* operations answer an
:class:`Outcome` at once, ``running`` unless it is over already; ``status`` repeats it, ``cancel`` stops and cleans
up, and the same request again joins or resumes the work, also after a restart of the broker. When an outcome
is ``succeeded``, its ``result`` is the operation's result type.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import msgspec

from schemas.base import Demand, Fact
from schemas.problems import Problem
from schemas.registry import message
from schemas.secrets import Secret
from schemas.values import (
    BrokerKind,
    Channel,
    CopyPart,
    CopySummary,
    DataServiceType,
    Hook,
    ImageContent,
    Level,
    Plan,
    ServiceSpec,
    ServiceState,
)

SERVICE_VERSION = "0.2.0"


class Request(Demand, frozen=True, kw_only=True):
    """The base of all requests."""

    TYPE: ClassVar[str]


class Change(Request, frozen=True, kw_only=True):
    """A request that changes something; idempotent by ``id``. ``operation`` is where its progress is told."""

    id: str
    operation: str = ""


class Reply(Fact, frozen=True, kw_only=True):
    """The base of all replies."""

    TYPE: ClassVar[str]


class BytesDone(Fact, frozen=True, kw_only=True):
    """How far a long operation is, in bytes; ``total`` is ``None`` while unknown."""

    done: int
    total: int | None = None
    message: str = ""


@message("reply.outcome")
class Outcome(Reply, frozen=True, kw_only=True):
    """The state of a long operation."""

    id: str
    state: Literal["running", "succeeded", "failed", "cancelled"]
    progress: BytesDone | None = None
    result: msgspec.Raw = msgspec.Raw(b"null")
    problem: Problem | None = None


@message("request.any.status")
class StatusRequest(Request, frozen=True, kw_only=True):
    """How is the operation ``id``? An unknown id is the problem ``not_found``."""

    id: str


@message("request.any.cancel")
class CancelRequest(Request, frozen=True, kw_only=True):
    """Stop the operation ``id`` and remove what it did. An unknown id is remembered as cancelled. Answered when that is
    done, or as ``running`` after a few seconds: then ``status`` tells the end."""

    id: str


@message("reply.done")
class Done(Reply, frozen=True, kw_only=True):
    """The change is made (now, or when it was asked for before)."""


@message("request.any.info")
class InfoRequest(Request, frozen=True, kw_only=True):
    """What are you?"""


# --- DSB: data services


@message("reply.dsb.info")
class DsbInfo(Reply, frozen=True, kw_only=True):
    """``attributes`` and ``secret_attributes`` are the names that bindings offer to templates.

    ``can_attach``: data services that were there before may be bound and copied through it. ``limits`` says in words
    what it can't do here, such as for want of privileges.
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


class CopyGrant(Fact, frozen=True, kw_only=True):
    """Access to one copy in a repository over HTTPS, for one purpose and a limited time.

    ``url`` is the base of the copy's resources (``<url>/parts/<part>``, ``<url>/manifest``, ``<url>/chunks``).
    ``ca`` is the PEM of the authority to trust; ``fingerprint`` the SHA-256 (hex) of the server's certificate,
    which is pinned. ``client_fingerprint``, when set, is the only client certificate that may use the grant.
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
    """Where and what it is, without secrets."""

    resource: dict[str, str]
    restored_bytes: int = 0


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
    """Copy ahead what can be copied before the moment is fixed. Long; may do nothing."""

    service_id: str
    copy: str
    existing: Existing | None = None


@message("request.dsb.prepare_copy")
class PrepareCopy(Change, frozen=True, kw_only=True):
    """Fix the copy's moment and return. The prepared moment is dropped by itself after ``hold_seconds``.

    Again with the same copy while the moment is held: the same answer. When the moment was lost (the broker
    restarted): the permanent problem ``moment_lost``, never a new moment.
    """

    service_id: str
    copy: str
    hold_seconds: float = 600.0
    existing: Existing | None = None


@message("reply.dsb.prepare_copy")
class Prepared(Reply, frozen=True, kw_only=True):
    """``moment`` names the point in the technology's own words; ``level`` is the best the broker can vouch for
    given quiesced writers: ``application`` when one moment covers the whole service, ``crash`` when not."""

    moment: str
    level: Level = "application"
    estimated_bytes: int | None = None


@message("request.dsb.copy")
class CopyData(Change, frozen=True, kw_only=True):
    """Stream the copy from its prepared moment to the repository behind ``grant``. Long."""

    service_id: str
    copy: str
    grant: CopyGrant
    existing: Existing | None = None


@message("reply.dsb.copy")
class Copied(Reply, frozen=True, kw_only=True):
    """What was written: parts as the repository confirmed them, and what the manifest should say of it."""

    copy_format: str
    parts: tuple[CopyPart, ...]
    engine: str = ""
    engine_version: str = ""


@message("request.dsb.discard_copy")
class DiscardCopy(Change, frozen=True, kw_only=True):
    """Let go of the prepared moment and whatever was staged. Unknown is done."""

    copy: str


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


@message("reply.any.health")
class Health(Reply, frozen=True, kw_only=True):
    """What the broker's own check says."""

    healthy: bool
    message: str = ""


# --- PSB: platforms


@message("reply.psb.info")
class PsbInfo(Reply, frozen=True, kw_only=True):
    """``artifacts`` are the artifact types that it runs; ``spaces`` where. ``hooks`` are the kinds of hooks that it
    can call: ``http`` (quiesce and thaw over HTTP), ``run`` (the other phases over HTTP), ``exec`` (commands in a
    service that runs), ``task`` (commands before the service runs).
    ``engine`` and ``engine_version`` say what it is: templates may require a range of versions of it."""

    name: str
    version: str
    artifacts: tuple[str, ...]
    spaces: tuple[str, ...] = ("default",)
    hooks: tuple[str, ...] = ("http",)
    can_pause: bool = True
    engine: str = ""
    engine_version: str = ""


@message("request.psb.spaces")
class SpacesRequest(Request, frozen=True, kw_only=True):
    """Which spaces are there?"""


@message("reply.psb.spaces")
class Spaces(Reply, frozen=True, kw_only=True):
    """Names of spaces."""

    spaces: tuple[str, ...]


class ServiceRef(Fact, frozen=True, kw_only=True):
    """One app service of one instance."""

    instance: str
    service: str


@message("request.psb.deploy")
class DeployService(Change, frozen=True, kw_only=True):
    """Run an app service and wait until it is healthy. Long. The same service again with the same content is
    no change; with other content it is replaced. A stopped one is started.

    ``environment`` is resolved; ``secret_environment`` holds the variables that contain secrets.
    """

    instance: str
    service: str
    spec: ServiceSpec
    environment: dict[str, str] = {}
    secret_environment: dict[str, Secret] = {}
    labels: dict[str, str] = {}
    space: str = "default"


@message("reply.psb.deploy")
class Deployed(Reply, frozen=True, kw_only=True):
    """Where it answers."""

    host: str | None = None
    port: int | None = None
    url: str | None = None
    artifact_digest: str | None = None


@message("request.psb.describe")
class DescribeServices(Request, frozen=True, kw_only=True):
    """What of ours runs: all, or what belongs to one instance."""

    instance: str | None = None


class ServiceStatus(Fact, frozen=True, kw_only=True):
    """What the platform says of one app service. ``healthy`` is its probe's word, not the absence of errors."""

    instance: str
    service: str
    state: ServiceState
    healthy: bool = False
    paused: bool = False
    url: str | None = None
    host: str | None = None
    port: int | None = None
    pid: int | None = None
    restarts: int = 0
    message: str = ""
    labels: dict[str, str] = {}


@message("reply.psb.describe")
class ServicesDescription(Reply, frozen=True, kw_only=True):
    """All app services found."""

    services: tuple[ServiceStatus, ...]


@message("request.psb.scale")
class ScaleService(Change, frozen=True, kw_only=True):
    """Run ``replicas`` of it; 0 stops it and keeps what is needed to deploy it again. Long. Unknown at 0 is done."""

    instance: str
    service: str
    replicas: int


@message("request.psb.pause")
class PauseService(Change, frozen=True, kw_only=True):
    """Freeze the service; the platform resumes it by itself after ``deadline_seconds``."""

    instance: str
    service: str
    deadline_seconds: float


@message("request.psb.resume")
class ResumeService(Change, frozen=True, kw_only=True):
    """Let it go on. Not paused is done. ``pause`` is the id of the pause that it ends."""

    instance: str
    service: str
    pause: str = ""


@message("request.psb.exec_hook")
class ExecHook(Change, frozen=True, kw_only=True):
    """Call a hook of the app service that holds or lets go its writers: ``quiesce`` (body of an HTTP hook:
    ``{"deadline_seconds": n}``) or ``thaw``. An ``exec`` hook finds the number in ``CALQUE_DEADLINE_SECONDS``."""

    instance: str
    service: str
    phase: Literal["quiesce", "thaw"]
    hook: Hook
    deadline_seconds: float = 30.0


RunHookPhase = Literal["before_copy", "after_copy", "before_restore", "after_restore"]


@message("request.psb.run_hook")
class RunHook(Change, frozen=True, kw_only=True):
    """Run any other hook to its end. Long; the same id is never run twice at the same time.

    ``http`` hooks get the body ``{"phase": ...}``; ``exec`` ones run in the service's environment and working
    directory, and find ``CALQUE_HOOK`` (the phase) there. A command that ends with another code than 0 is the
    permanent problem ``hook_failed``, with the end of its output and no secrets; one that takes longer than
    ``hook.timeout_seconds`` is ended with all its children: ``hook_timeout``.

    With ``task`` the service is not there yet: the command runs where the service would, as that deployment
    describes it, and what was made for it alone is gone afterwards.
    """

    instance: str
    service: str
    phase: RunHookPhase
    hook: Hook
    task: DeployService | None = None


@message("reply.psb.hook")
class Held(Reply, frozen=True, kw_only=True):
    """The answer of pause, resume and exec_hook.

    For the two that end a hold, ``held`` says whether the service was held without a break from the
    acknowledged quiesce (or pause) until now; false when the deadline let it go before.
    """

    held: bool
    message: str = ""


@message("reply.psb.run_hook")
class HookRan(Reply, frozen=True, kw_only=True):
    """The hook did its work; ``output`` is the end of what a command printed, without secrets."""

    output: str = ""


@message("request.psb.remove")
class RemoveService(Change, frozen=True, kw_only=True):
    """Stop it and remove all that belongs to it. Unknown is done. Long."""

    instance: str
    service: str


@message("request.psb.logs")
class LogsRequest(Request, frozen=True, kw_only=True):
    """The last ``lines`` lines of an app service."""

    instance: str
    service: str
    lines: int = 100


@message("reply.psb.logs")
class LogLines(Reply, frozen=True, kw_only=True):
    """Lines, oldest first, without line ends."""

    lines: tuple[str, ...]


# --- CRB: copy repositories


@message("reply.crb.info")
class CrbInfo(Reply, frozen=True, kw_only=True):
    """``fingerprint`` is the SHA-256 (hex) of the certificate that the repository serves and fetches with,
    ``signing_key`` the key (Ed25519, hex) that it signs manifests with."""

    name: str
    version: str
    repositories: tuple[str, ...]
    protocols: tuple[str, ...]
    fingerprint: str
    format: int = 0
    signing_key: str = ""


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
    """Begin (or resume) a copy. Answers a write grant; its token lives for ``ttl_seconds``."""

    copy: str
    source: CopySource
    ttl_seconds: float = 3600.0


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
    """A committed copy and where it comes from."""

    summary: CopySummary
    source: CopySource
    copied: Copied
    moment: str
    level: Level
    created_at: str


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
    """Delete a copy, and the chunks that no other copy needs. Unknown is done. Long."""

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
    """Remove the manifest of an image. Unknown is done."""

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
    """Sizes in bytes; ``free`` is what its file system has left."""

    copies: int
    images: int
    chunks: int
    stored: int
    free: int
    staging: int = 0


class OperationContract(NamedTuple):
    """The types of one broker operation; ``long`` ones answer :class:`Outcome` with ``result`` inside."""

    request: type[Request]
    result: type[Reply]
    long: bool = False


_ANY = {
    "status": OperationContract(StatusRequest, Outcome),
    "cancel": OperationContract(CancelRequest, Outcome),
}

CONTRACTS: dict[BrokerKind, dict[str, OperationContract]] = {
    "dsb": {
        "info": OperationContract(InfoRequest, DsbInfo),
        "attach": OperationContract(Attach, Attachable, long=True),
        "provision": OperationContract(Provision, Provisioned, long=True),
        "deprovision": OperationContract(Deprovision, Done, long=True),
        "bind": OperationContract(Bind, Bound),
        "unbind": OperationContract(Unbind, Done),
        "stage_copy": OperationContract(StageCopy, Done, long=True),
        "prepare_copy": OperationContract(PrepareCopy, Prepared),
        "copy": OperationContract(CopyData, Copied, long=True),
        "discard_copy": OperationContract(DiscardCopy, Done),
        "describe": OperationContract(DescribeDataServices, DataServicesDescription),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "psb": {
        "info": OperationContract(InfoRequest, PsbInfo),
        "spaces": OperationContract(SpacesRequest, Spaces),
        "deploy": OperationContract(DeployService, Deployed, long=True),
        "describe": OperationContract(DescribeServices, ServicesDescription),
        "scale": OperationContract(ScaleService, Done, long=True),
        "pause": OperationContract(PauseService, Held),
        "resume": OperationContract(ResumeService, Held),
        "exec_hook": OperationContract(ExecHook, Held),
        "run_hook": OperationContract(RunHook, HookRan, long=True),
        "remove": OperationContract(RemoveService, Done, long=True),
        "logs": OperationContract(LogsRequest, LogLines),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "crb": {
        "info": OperationContract(InfoRequest, CrbInfo),
        "repositories": OperationContract(RepositoriesRequest, Repositories),
        "open_write": OperationContract(OpenWrite, Granted),
        "commit": OperationContract(CommitCopy, Committed, long=True),
        "abort": OperationContract(AbortCopy, Done),
        "open_read": OperationContract(OpenRead, Granted),
        "list": OperationContract(ListCopies, CopyList),
        "describe": OperationContract(DescribeCopy, CopyDescription),
        "verify": OperationContract(VerifyCopy, Verified, long=True),
        "delete": OperationContract(DeleteCopy, Done, long=True),
        "transfer": OperationContract(TransferCopy, Committed, long=True),
        "images": OperationContract(ListImages, ImageList),
        "record_image": OperationContract(RecordImage, Done),
        "forget_image": OperationContract(ForgetImage, Done),
        "collect": OperationContract(Collect, Collected, long=True),
        "repair": OperationContract(RepairRepository, RepositoryRepaired, long=True),
        "stats": OperationContract(StatsRequest, RepositoryStats),
        "health": OperationContract(DataServiceHealth, Health),
        **_ANY,
    },
    "arb": {},
}
