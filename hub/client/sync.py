"""The client for programs without asyncio: the same methods, and each waits. Start at :class:`SyncClient`.

Made from hub/client/client.py by `python -m hub.client.make_sync` (`make generate`); `make check` holds it to that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Self, TypeVar

from bus.events import Recorded
from hub.client.background import Background, SyncSubscription
from hub.client.beats import Heard
from hub.client.bindings import OpenedBinding
from hub.client.client import CONNECT_SECONDS, Client
from hub.client.context import Context
from hub.client.history import EventFilter
from hub.client.started import Started
from hub.client.watching import Observer
from schemas import queries
from schemas.brokers import MaskingPreview
from schemas.conditions import ConditionView
from schemas.letters import MOST_LETTERS, LetterOutcome, LettersView, WholeLetter
from schemas.masking import Masking
from schemas.repositories import RepositoryCondition, RepositoryView, ScanView
from schemas.room import StreamFill
from schemas.secrets import Secret
from schemas.signals import Progress
from schemas.site_secrets import SecretChanged, SecretView
from schemas.strays import StraysView
from schemas.subscriptions import SubscriptionPlace
from schemas.upkeep import RebuildView, SnapshotPlace, VerificationView
from schemas.values import Artifact, Attachment, ImageState, OperationState, Template, TemplateRef, Value

T = TypeVar("T", bound=queries.View)


class SyncClient:
    """A connection to a hub. Made with :meth:`connect`; a context manager. May be shared by threads.

    It runs a :class:`hub.client.Client` in a thread of its own. Errors are the same; so are the results.
    """

    def __init__(self, background: Background, client: Client) -> None:
        self._background = background
        self._client = client

    @classmethod
    def connect(cls, context: Context, *, deadline_seconds: float = CONNECT_SECONDS) -> Self:
        """Connect as the context says; raises :class:`HubUnreachableError` or :class:`ForbiddenError`."""
        background = Background(name=f"calque-client-{context.principal}")
        try:
            client = background.run(Client.connect(context, deadline_seconds=deadline_seconds))
        except BaseException:
            background.stop()
            raise
        return cls(background, client)

    def close(self) -> None:
        """Disconnect. Operations go on."""
        self._background.run(self._client.close())
        self._background.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(
        self, operation: str, *, timeout: float | None = None, observer: Observer | None = None
    ) -> queries.OperationView:
        """Wait until the operation ends, at most ``timeout`` seconds; ``observer`` sees each change.

        Raises :class:`OperationFailedError`, :class:`WaitTimedOutError`, or what its command was rejected for."""
        return self._background.run(self._client.wait(operation, timeout=timeout, observer=observer))

    def status(self) -> queries.StatusView:
        """How it all is."""
        return self._background.run(self._client.status())

    def hubs(self) -> tuple[queries.HubView, ...]:
        """The hub processes that share the work."""
        return self._background.run(self._client.hubs())

    def templates(self, name: str | None = None) -> tuple[queries.TemplateView, ...]:
        """Template versions, newest last."""
        return self._background.run(self._client.templates(name))

    def template(self, name: str, *, version: str | None = None) -> Template:
        """The whole content of a template; of the newest version without ``version``."""
        return self._background.run(self._client.template(name, version=version))

    def condition(self) -> ConditionView:
        """How the hub that answers is: who reads its streams, and what it has made of them."""
        return self._background.run(self._client.condition())

    def sites(self) -> tuple[queries.SiteView, ...]:
        """All sites."""
        return self._background.run(self._client.sites())

    def brokers(self, *, site: str | None = None) -> tuple[queries.BrokerView, ...]:
        """Brokers, of one site or of all."""
        return self._background.run(self._client.brokers(site=site))

    def logs(
        self, app: str, *, service: str | None = None, lines: int = 100, site: str | None = None
    ) -> queries.LogsView:
        """The last lines of an app service; of the entry point without ``service``."""
        return self._background.run(self._client.logs(app, service=service, lines=lines, site=site))

    def follow_logs(
        self, app: str, *, service: str | None = None, lines: int = 10, site: str | None = None
    ) -> Iterator[str]:
        """The last lines, then those that come, without end."""
        return self._background.iterate(self._client.follow_logs(app, service=service, lines=lines, site=site))

    def binding(self, app: str, data_service: str, *, site: str | None = None) -> OpenedBinding:
        """How an app reaches one of its data services, with the secrets, sealed on the way to a one-time key."""
        return self._background.run(self._client.binding(app, data_service, site=site))

    def preview_masking(
        self,
        app: str,
        data_service: str,
        rules: Masking,
        *,
        rows: int = 0,
        before: bool = False,
        site: str | None = None,
    ) -> MaskingPreview:
        """What ``rules`` would do to a data service of a running app: to each column and, masked, to the first ``rows``
        of each table that they change, with ``before`` also as they are. Sealed on the way to a one-time key."""
        return self._background.run(
            self._client.preview_masking(app, data_service, rules, rows=rows, before=before, site=site)
        )

    def secrets(self, *, site: str | None = None) -> tuple[SecretView, ...]:
        """The secrets that people gave to sites, without their values."""
        return self._background.run(self._client.secrets(site=site))

    def set_secret(self, name: str, value: Secret, *, site: str, command: str | None = None) -> SecretChanged:
        """Give ``site`` a secret, sealed to its key. Not queued: a site that is offline is a temporary error."""
        return self._background.run(self._client.set_secret(name, value, site=site, command=command))

    def remove_secret(self, name: str, *, site: str, command: str | None = None) -> SecretChanged:
        """Take a secret away from ``site``."""
        return self._background.run(self._client.remove_secret(name, site=site, command=command))

    def ask(self, what: str, question: queries.Query, reply: type[T]) -> T:
        """Any query; raises :class:`ClientError`. Asked again for as long as a hub may be about to be back."""
        return self._background.run(self._client.ask(what, question, reply))

    def apply_template(self, template: Template, *, command: str | None = None) -> Started:
        """Record a version of a template; the same content again is no change."""
        return self._background.run(self._client.apply_template(template, command=command))

    def deploy(
        self,
        template: TemplateRef,
        *,
        name: str,
        site: str,
        environment: Mapping[str, Mapping[str, Value]] | None = None,
        plans: Mapping[str, str] | None = None,
        environment_name: str | None = None,
        without: Sequence[str] = (),
        including: Sequence[str] = (),
        artifacts: Mapping[str, Artifact] | None = None,
        attach: Mapping[str, Attachment] | None = None,
        adopted: bool = False,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Deploy a template blank at ``site`` as ``name``; the target is the new instance's id.

        ``attach`` names data services that were there before; ``adopted``: the app services run somewhere else. A URL
        with a password in it is refused here, since the command is stored."""
        return self._background.run(
            self._client.deploy(
                template,
                name=name,
                site=site,
                environment=environment,
                plans=plans,
                environment_name=environment_name,
                without=without,
                including=including,
                artifacts=artifacts,
                attach=attach,
                adopted=adopted,
                expected_plan=expected_plan,
                deadline_seconds=deadline_seconds,
                command=command,
            )
        )

    def save(
        self,
        app: str,
        *,
        name: str,
        tags: Sequence[str] = (),
        comment: str = "",
        site: str | None = None,
        repository: str | None = None,
        masked: bool = False,
        masking: Mapping[str, Masking] | None = None,
        bytes_per_second: int = 0,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Save an app as the image ``name``; the target is the new image's id.

        Without a ``repository`` of its site, that site's policy picks one. ``masked``: data is masked as it leaves its
        source, by the rules of ``masking`` (data service -> rules) or, without any, those of the template.
        ``bytes_per_second`` is a limit for its bytes; 0 for none."""
        return self._background.run(
            self._client.save(
                app,
                name=name,
                tags=tags,
                comment=comment,
                site=site,
                repository=repository,
                masked=masked,
                masking=masking,
                bytes_per_second=bytes_per_second,
                expected_plan=expected_plan,
                deadline_seconds=deadline_seconds,
                command=command,
            )
        )

    def run(
        self,
        image: str,
        *,
        name: str,
        site: str,
        environment: Mapping[str, Mapping[str, Value]] | None = None,
        plans: Mapping[str, str] | None = None,
        environment_name: str | None = None,
        without: Sequence[str] = (),
        including: Sequence[str] = (),
        artifacts: Mapping[str, Artifact] | None = None,
        repository: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Run an image at ``site`` as ``name``; the target is the new instance's id.

        Copies that have to be fetched go into ``repository``, else where the site's policy says."""
        return self._background.run(
            self._client.run(
                image,
                name=name,
                site=site,
                environment=environment,
                plans=plans,
                environment_name=environment_name,
                without=without,
                including=including,
                artifacts=artifacts,
                repository=repository,
                expected_plan=expected_plan,
                deadline_seconds=deadline_seconds,
                command=command,
            )
        )

    def transfer_image(
        self,
        image: str,
        *,
        site: str,
        repository: str | None = None,
        bytes_per_second: int = 0,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Have an image's copies at ``site`` too, in its ``repository`` or where its policy says; their bytes no
        faster than ``bytes_per_second``, if that is not 0."""
        return self._background.run(
            self._client.transfer_image(
                image,
                site=site,
                repository=repository,
                bytes_per_second=bytes_per_second,
                deadline_seconds=deadline_seconds,
                command=command,
            )
        )

    def stop(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Stop the app services; data is kept."""
        return self._background.run(
            self._client.stop(
                app, site=site, expected_plan=expected_plan, deadline_seconds=deadline_seconds, command=command
            )
        )

    def start(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Start a stopped app."""
        return self._background.run(
            self._client.start(
                app, site=site, expected_plan=expected_plan, deadline_seconds=deadline_seconds, command=command
            )
        )

    def delete(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Remove an app with its data."""
        return self._background.run(
            self._client.delete(
                app, site=site, expected_plan=expected_plan, deadline_seconds=deadline_seconds, command=command
            )
        )

    def edit_image(
        self,
        image: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        command: str | None = None,
    ) -> Started:
        """Change an image's name, tags (all of them) or comment; what is ``None`` stays."""
        return self._background.run(
            self._client.edit_image(image, name=name, tags=tags, comment=comment, command=command)
        )

    def delete_image(self, image: str, *, command: str | None = None) -> Started:
        """Delete an image and its copies."""
        return self._background.run(self._client.delete_image(image, command=command))

    def cancel(self, operation: str, *, command: str | None = None) -> Started:
        """Cancel a running operation; what it did is undone."""
        return self._background.run(self._client.cancel(operation, command=command))

    def import_repository(
        self, name: str, *, site: str, trust: Sequence[str] = (), command: str | None = None
    ) -> Started:
        """Record what lies in a repository and is on no record; ``trust`` are signing keys to take from now on."""
        return self._background.run(self._client.import_repository(name, site=site, trust=trust, command=command))

    def verify_repository(
        self, name: str, *, site: str, copies: Sequence[str] = (), command: str | None = None
    ) -> Started:
        """Have all copies of a repository, or those named, read and compared with their digests."""
        return self._background.run(self._client.verify_repository(name, site=site, copies=copies, command=command))

    def collect_repository(self, name: str, *, site: str, command: str | None = None) -> Started:
        """Remove data from a repository that nothing refers to."""
        return self._background.run(self._client.collect_repository(name, site=site, command=command))

    def repositories(self, *, site: str | None = None) -> tuple[RepositoryView, ...]:
        """Repositories, of one site or of all, with what the record says lies there."""
        return self._background.run(self._client.repositories(site=site))

    def repository(self, name: str, *, site: str) -> RepositoryCondition:
        """How full a repository is now, by its broker's own word."""
        return self._background.run(self._client.repository(name, site=site))

    def scan_repository(self, name: str, *, site: str) -> ScanView:
        """What lies in a repository now; nothing is recorded."""
        return self._background.run(self._client.scan_repository(name, site=site))

    def events(
        self,
        *,
        after: int | None = None,
        since: datetime | None = None,
        follow: bool = False,
        wanted: EventFilter = EventFilter(),
        apps: Collection[str] = (),
    ) -> Iterator[Recorded]:
        """The record of events: all, those after a sequence or ``since`` a moment, or (``follow``) those to come.

        ``apps`` are ids of apps; :mod:`hub.client.app_events` says which events are about an app."""
        return self._background.iterate(
            self._client.events(after=after, since=since, follow=follow, wanted=wanted, apps=apps)
        )

    def subscribe(
        self,
        name: str,
        *,
        start: Literal["new", "first"] = "new",
        sequence: int | None = None,
        since: datetime | None = None,
        sites: Collection[str] | None = None,
        types: Collection[str] | None = None,
        apps: Collection[str] | None = None,
        follow: bool = True,
    ) -> SyncSubscription:
        """A durable subscription, to be opened with ``async with``; :mod:`hub.client.subscriptions` says how it reads.

        A new one begins at ``start``, or with the event ``sequence``, or with the first ``since`` a moment; one that is
        there goes on at its place, with the filters that it has. ``sites`` wrote the events; ``types`` are such as
        ``copy.committed`` or ``copy``; ``apps`` are ids of apps (:mod:`hub.client.app_events` says what is about an
        app). Without ``follow`` it ends when there is no more."""
        return SyncSubscription(
            self._background,
            self._client.subscribe(
                name, start=start, sequence=sequence, since=since, sites=sites, types=types, apps=apps, follow=follow
            ),
        )

    def subscriptions(self, *, principal: str | None = None, everybody: bool = False) -> tuple[SubscriptionPlace, ...]:
        """One's own subscriptions; those of another ``principal``, or of ``everybody``, for operators."""
        return self._background.run(self._client.subscriptions(principal=principal, everybody=everybody))

    def unsubscribe(self, name: str, *, principal: str | None = None) -> bool:
        """End a subscription, one's own or (for operators) another's; whether there was one."""
        return self._background.run(self._client.unsubscribe(name, principal=principal))

    def beats(self, *, senders: Collection[str], seconds: float) -> dict[str, Heard]:
        """Heartbeats of the hub (``hub``) and of sites, listened to until all ``senders`` were heard."""
        return self._background.run(self._client.beats(senders=senders, seconds=seconds))

    def apps(
        self, *, name: str | None = None, site: str | None = None, all: bool = False, configuration: bool = False
    ) -> tuple[queries.AppView, ...]:
        """Apps; deleted ones with ``all``, every variable of theirs with ``configuration``."""
        return self._background.run(self._client.apps(name=name, site=site, all=all, configuration=configuration))

    def app(self, name: str, *, site: str | None = None, configuration: bool = False) -> queries.AppView:
        """One app by id, or the one that holds the name now; what is gone is found by its id only."""
        return self._background.run(self._client.app(name, site=site, configuration=configuration))

    def images(
        self,
        *,
        name: str | None = None,
        all: bool = False,
        state: ImageState | None = None,
        site: str | None = None,
        template: str | None = None,
        tags: Sequence[str] = (),
        text: str | None = None,
        since: str | None = None,
        before: str | None = None,
        sort: queries.ImageOrder = "created",
        descending: bool = False,
        limit: int | None = None,
    ) -> tuple[queries.ImageView, ...]:
        """Saved images; with ``all`` also those being saved, failed or deleted. The rest is as in
        :class:`schemas.queries.ImagesQuery`; without a ``limit`` all pages are fetched."""
        return self._background.run(
            self._client.images(
                name=name,
                all=all,
                state=state,
                site=site,
                template=template,
                tags=tags,
                text=text,
                since=since,
                before=before,
                sort=sort,
                descending=descending,
                limit=limit,
            )
        )

    def image(self, name: str) -> queries.ImageView:
        """One image by name or id, in whatever state."""
        return self._background.run(self._client.image(name))

    def operations(
        self, *, state: OperationState | None = None, target: str | None = None, limit: int = 100
    ) -> tuple[queries.OperationView, ...]:
        """Operations, newest first."""
        return self._background.run(self._client.operations(state=state, target=target, limit=limit))

    def operation(self, id: str) -> queries.OperationView:
        """One operation."""
        return self._background.run(self._client.operation(id))

    def dead_letters(
        self,
        *,
        site: str | None = None,
        stream: str | None = None,
        type: str | None = None,
        code: str | None = None,
        limit: int = MOST_LETTERS,
    ) -> LettersView:
        """Dead letters, oldest first: all, or those of a ``site`` (or ``hub``), of a stream, of a message type, with a
        problem's ``code``."""
        return self._background.run(
            self._client.dead_letters(site=site, stream=stream, type=type, code=code, limit=limit)
        )

    def dead_letter(self, id: str) -> WholeLetter:
        """One dead letter with its message."""
        return self._background.run(self._client.dead_letter(id))

    def strays(self, *, site: str | None = None) -> StraysView:
        """Events that were set apart - forged, foreign, unreadable - by writer and reason, with the last examples."""
        return self._background.run(self._client.strays(site=site))

    def room(self) -> tuple[StreamFill, ...]:
        """How full the hub's streams are."""
        return self._background.run(self._client.room())

    def retry_dead_letters(self, ids: Sequence[str]) -> tuple[LetterOutcome, ...]:
        """Have each tried once more; a command has its one effect however often. What fails again is a letter again."""
        return self._background.run(self._client.retry_dead_letters(ids))

    def discard_dead_letters(self, ids: Sequence[str]) -> tuple[LetterOutcome, ...]:
        """Throw each away."""
        return self._background.run(self._client.discard_dead_letters(ids))

    def snapshots(self) -> tuple[SnapshotPlace, ...]:
        """The snapshots that lie at the hub, newest first, with what is wrong with them."""
        return self._background.run(self._client.snapshots())

    def write_snapshot(self) -> SnapshotPlace:
        """Have a snapshot written now. Raises as all verbs do; ``busy`` when others write too."""
        return self._background.run(self._client.write_snapshot())

    def verify_replay(
        self, *, timeout: float | None = None, observer: Callable[[Progress], None] | None = None
    ) -> VerificationView:
        """Have what the hub knows compared with a replay of its events from zero; ``observer`` is told how far it is.

        Raises as all verbs do; ``busy`` when the hub verifies already."""
        return self._background.run(self._client.verify_replay(timeout=timeout, observer=observer))

    def rebuild_events(self, *, sites: Sequence[str] = (), command: str | None = None) -> RebuildView:
        """Have the hub's ``EVENTS`` deleted and made anew; the hub is away for that time. :meth:`rebuild` says how far
        it is. The events of ``sites``, which have to be online, are sent by them again."""
        return self._background.run(self._client.rebuild_events(sites=sites, command=command))

    def rebuild(self) -> RebuildView:
        """The last rebuilding of ``EVENTS``."""
        return self._background.run(self._client.rebuild())
