"""Commands: to the hub (published by clients) and to a site (published by the hub, or locally at the site).

The id of a command is the id of the operation that it starts. The aggregate's id stands in the subject.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from schemas.base import Demand, Fact
from schemas.masking import Masking
from schemas.problems import Problem
from schemas.registry import command, message
from schemas.values import Artifact, Attachment, Choices, ImageContent, Requester, Template, TemplateRef, Value
from schemas.webhooks import StartAt, WebhookSpec


class Command(Demand, frozen=True, kw_only=True):
    """The base of all commands; ``AGGREGATE`` and ``VERB`` are those of the subject."""

    TYPE: ClassVar[str]
    AGGREGATE: ClassVar[str]
    VERB: ClassVar[str]


class Timed(Command, frozen=True, kw_only=True):
    """The base of commands that begin an operation with a deadline: ``deadline_seconds`` after its acceptance it goes
    back. Without one, its verb has a default (:mod:`schemas.deadlines`)."""

    deadline_seconds: float | None = None


class Planned(Timed, frozen=True, kw_only=True):
    """The base of commands that can be planned: with ``expected_plan`` (the ``digest`` of a candidate of
    ``view.plan``) the command is rejected when what it would do is no longer that."""

    expected_plan: str | None = None


# --- to the hub: aggregate ids are made by the caller (UUIDv7), a template's is names.template_token


@command("hub", "template", "apply")
class ApplyTemplate(Command, frozen=True, kw_only=True):
    """Record a template. Set once per (team, name, version): the same content again is no change."""

    template: Template


@command("hub", "instance", "deploy")
class DeployInstance(Planned, frozen=True, kw_only=True):
    """Deploy a template blank at ``site`` as the instance whose id stands in the subject.

    The fields from ``environment`` on are those of :class:`schemas.values.Choices`.
    """

    name: str
    site: str
    template: TemplateRef
    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    attach: dict[str, Attachment] = {}
    adopted: bool = False


@command("hub", "instance", "save")
class SaveInstance(Planned, frozen=True, kw_only=True):
    """Save the instance as a new image; ``image`` is the new image's id. Its copies go into ``repository`` of the
    instance's site, else where that site's policy says.

    With ``masked`` every data service is masked as its data leaves: by its rules in ``masking``, or those of the
    template when there is no ``masking`` at all. Its bytes go no faster than ``bytes_per_second``, all data services
    together; 0 for no limit.
    """

    image: str
    name: str
    tags: tuple[str, ...] = ()
    comment: str = ""
    repository: str | None = None
    masked: bool = False
    masking: dict[str, Masking] = {}
    bytes_per_second: int = 0


@command("hub", "instance", "stop")
class StopInstance(Planned, frozen=True, kw_only=True):
    """Stop the app services; data is kept."""


@command("hub", "instance", "start")
class StartInstance(Planned, frozen=True, kw_only=True):
    """Start a stopped instance again."""


@command("hub", "instance", "delete")
class DeleteInstance(Planned, frozen=True, kw_only=True):
    """Remove the instance with its data. Images saved from it stay."""


@command("hub", "image", "run")
class RunImage(Planned, frozen=True, kw_only=True):
    """Run an image at ``site`` as a new instance; copies are transferred there first where they are missing.

    What is transferred goes into ``repository`` of the site, else where the site's policy says.
    """

    instance: str
    name: str
    site: str
    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    repository: str | None = None


@command("hub", "image", "transfer")
class TransferImage(Timed, frozen=True, kw_only=True):
    """Have the image's copies at ``site`` too, in ``repository`` or else where the site's policy says.

    With a ``repository`` all of them are to lie there, also when others of the same site hold them already. Their
    bytes go no faster than ``bytes_per_second``, all together; 0 for no limit.
    """

    site: str
    repository: str | None = None
    bytes_per_second: int = 0


@command("hub", "image", "edit")
class EditImage(Command, frozen=True, kw_only=True):
    """Change what the catalog says of a saved image; what is ``None`` stays. ``tags`` replace those there are."""

    name: str | None = None
    tags: tuple[str, ...] | None = None
    comment: str | None = None


@command("hub", "image", "delete")
class DeleteImage(Command, frozen=True, kw_only=True):
    """Delete an image: a tombstone first, then its copies at every site that holds them."""


@command("hub", "repository", "import")
class ImportRepository(Command, frozen=True, kw_only=True):
    """Record what lies in a copy repository and nobody recorded yet; its id in the subject is
    ``names.repository_token``. What is signed by a key in ``trust`` (Ed25519, hex) is taken from here on."""

    trust: tuple[str, ...] = ()


@command("hub", "repository", "verify")
class VerifyRepository(Command, frozen=True, kw_only=True):
    """Read all copies of a repository, or those named, and compare every digest."""

    copies: tuple[str, ...] = ()


@command("hub", "repository", "collect")
class CollectRepository(Command, frozen=True, kw_only=True):
    """Remove data from a repository that nothing refers to."""


@command("hub", "operation", "cancel")
class CancelOperation(Command, frozen=True, kw_only=True):
    """Cancel a running operation; what it did is undone."""


@command("hub", "webhook", "add")
class AddWebhook(Command, frozen=True, kw_only=True):
    """Send events on to a URL from now on, or from ``start``. The webhook's name stands in the subject."""

    spec: WebhookSpec
    start: StartAt | None = None


@command("hub", "webhook", "remove")
class RemoveWebhook(Command, frozen=True, kw_only=True):
    """Send nothing more, and forget the webhook with its dead letters."""


@command("hub", "webhook", "pause")
class PauseWebhook(Command, frozen=True, kw_only=True):
    """Send nothing for now; events wait."""

    reason: str = ""


@command("hub", "webhook", "resume")
class ResumeWebhook(Command, frozen=True, kw_only=True):
    """Go on with the first event that was not delivered."""


@command("hub", "webhook", "replay")
class ReplayWebhook(Command, frozen=True, kw_only=True):
    """Send all events from ``start`` on, also those that were delivered; what waits from before is part of it."""

    start: StartAt


@command("hub", "webhook", "rotate")
class RotateWebhook(Command, frozen=True, kw_only=True):
    """Sign with a new secret; for a day deliveries bear a signature by the one before as well."""


# --- to a site: what the hub resolved comes along whole, so that the site decides alone


class SiteCommand(Planned, frozen=True, kw_only=True):
    """The base of commands to a site: ``parent`` is the hub's operation that sent it, if one did."""

    by: Requester
    parent: str | None = None


@command("site", "instance", "deploy")
class SiteDeployInstance(SiteCommand, frozen=True, kw_only=True):
    """Deploy the template that comes along."""

    name: str
    template: Template
    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}
    attach: dict[str, Attachment] = {}
    adopted: bool = False


@command("site", "instance", "run")
class SiteRunImage(SiteCommand, frozen=True, kw_only=True):
    """Restore and deploy an image whose copies lie at this site; the instance's id stands in the subject."""

    name: str
    content: ImageContent
    environment: dict[str, dict[str, Value]] = {}
    plans: dict[str, str] = {}
    environment_name: str | None = None
    without: tuple[str, ...] = ()
    including: tuple[str, ...] = ()
    artifacts: dict[str, Artifact] = {}


@command("site", "instance", "save")
class SiteSaveInstance(SiteCommand, frozen=True, kw_only=True):
    """Save the instance; ``copies`` is data service -> id of the new copy, chosen by the hub."""

    image: str
    copies: dict[str, str] = {}
    repository: str | None = None
    masked: bool = False
    masking: dict[str, Masking] = {}
    bytes_per_second: int = 0


@command("site", "instance", "stop")
class SiteStopInstance(SiteCommand, frozen=True, kw_only=True):
    """Stop the app services."""


@command("site", "instance", "start")
class SiteStartInstance(SiteCommand, frozen=True, kw_only=True):
    """Start the app services again."""


@command("site", "instance", "delete")
class SiteDeleteInstance(SiteCommand, frozen=True, kw_only=True):
    """Remove the app services, bindings and data services."""


@command("site", "image", "transfer")
class SiteTransferImage(SiteCommand, frozen=True, kw_only=True):
    """Fetch the image's copies that this site (or its ``repository``) lacks, straight from a repository of
    ``source``, or from another one of this site."""

    content: ImageContent
    source: str
    repository: str | None = None
    bytes_per_second: int = 0


@command("site", "image", "forget")
class SiteForgetImage(SiteCommand, frozen=True, kw_only=True):
    """Delete the image's copies from this site's repositories, those that no other image here holds."""

    content: ImageContent


@command("site", "repository", "import")
class SiteImportRepository(SiteCommand, frozen=True, kw_only=True):
    """Record what lies in a repository of this site and was not recorded yet."""

    trust: tuple[str, ...] = ()


@command("site", "repository", "verify")
class SiteVerifyRepository(SiteCommand, frozen=True, kw_only=True):
    """Read copies of a repository of this site and compare every digest."""

    copies: tuple[str, ...] = ()


@command("site", "repository", "collect")
class SiteCollectRepository(SiteCommand, frozen=True, kw_only=True):
    """Remove data from a repository of this site that nothing refers to."""


@command("site", "operation", "cancel")
class SiteCancelOperation(SiteCommand, frozen=True, kw_only=True):
    """Cancel the site operation whose id stands in the subject."""


@message("answer.command")
class Answer(Fact, frozen=True, kw_only=True):
    """The answer to a command: ``accepted`` (``operation`` starts, or the change is made), ``rejected``, or
    ``queued`` (the hub passed it on; the site has not answered yet).

    ``operation`` is the command's own id when it starts a long-running job, else ``None``.
    """

    command: str
    state: Literal["accepted", "rejected", "queued"]
    operation: str | None = None
    problem: Problem | None = None
    site: str | None = None


def choices(command: DeployInstance | RunImage | SiteDeployInstance | SiteRunImage) -> Choices:
    """What the sender of ``command`` chose."""
    return Choices(
        environment=command.environment,
        plans=command.plans,
        environment_name=command.environment_name,
        without=command.without,
        including=command.including,
        artifacts=command.artifacts,
        attach=command.attach if isinstance(command, DeployInstance | SiteDeployInstance) else {},
        adopted=command.adopted if isinstance(command, DeployInstance | SiteDeployInstance) else False,
    )


def chosen(command: DeployInstance | RunImage) -> dict[str, Any]:
    """The fields of :func:`choices` as they are, for the command that it is passed on as."""
    fields = msgspec.structs.asdict(choices(command))
    if isinstance(command, RunImage):  # an image gets data services of its own
        return {name: value for name, value in fields.items() if name not in ("attach", "adopted")}
    return fields
