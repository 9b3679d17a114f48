"""What lists show of each kind of thing: columns, names, and what is said when there is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from hub.cli.output import Format, age, seconds, size
from schemas.queries import AppView, BrokerView, ImageView, OperationView, SiteView, TemplateView
from schemas.repositories import RepositoryView
from schemas.site_secrets import SecretView
from schemas.subscriptions import SubscriptionPlace

T = TypeVar("T")


class Column(NamedTuple, Generic[T]):
    """A column. ``wide`` ones stand only in ``-o wide``; ``firm`` ones are never cut to fit a terminal."""

    head: str
    value: Callable[[T], object]
    wide: bool = False
    firm: bool = False


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[T]):
    """How a kind of thing is listed. ``name`` is what commands take; ``id`` is taken when that is not the only one."""

    columns: tuple[Column[T], ...]
    name: Callable[[T], str]
    id: Callable[[T], str]
    empty: str

    def chosen(self, form: Format) -> tuple[Column[T], ...]:
        """The columns for ``table`` or ``wide``."""
        return tuple(column for column in self.columns if form == "wide" or not column.wide)

    def names(self, items: Sequence[T]) -> list[str]:
        """For each thing its name, or its id where several bear that name."""
        often = Counter(self.name(item) for item in items)
        return [self.name(item) if often[self.name(item)] == 1 else self.id(item) for item in items]


def _app_status(app: AppView) -> str:
    return f"{app.status} (stale)" if app.stale else app.status


def _progress(view: OperationView) -> str:
    return f"{sum(step.state == 'done' for step in view.steps)}/{len(view.steps)}"


APPS = Kind[AppView](
    columns=(
        Column("name", lambda app: app.name, firm=True),
        Column("site", lambda app: app.site),
        Column("state", lambda app: app.state),
        Column("status", _app_status),
        Column("template", lambda app: app.template),
        Column("url", lambda app: app.url),
        Column("age", lambda app: age(app.created_at)),
        Column("image", lambda app: app.image, wide=True),
        Column("id", lambda app: app.id, wide=True, firm=True),
        Column("message", lambda app: app.message, wide=True),
    ),
    name=lambda app: app.name,
    id=lambda app: app.id,
    empty="no apps; deploy one with 'calque deploy TEMPLATE --site SITE --name NAME'",
)
IMAGES = Kind[ImageView](
    columns=(
        Column("name", lambda image: image.name, firm=True),
        Column("state", lambda image: image.state),
        Column("from", lambda image: image.instance_name),
        Column("sites", lambda image: image.sites or (image.site,)),
        Column("level", lambda image: image.level),
        Column("size", lambda image: size(image.size), firm=True),
        Column("tags", lambda image: image.tags),
        Column("age", lambda image: age(image.created_at)),
        Column("stored", lambda image: size(image.stored), wide=True),
        Column("template", lambda image: image.template, wide=True),
        Column("writers waited", lambda image: seconds(image.writers_wait_seconds), wide=True),
        Column("parent", lambda image: image.parent, wide=True),
        Column("masked", lambda image: image.masked, wide=True),
        Column("id", lambda image: image.id, wide=True, firm=True),
        Column("comment", lambda image: image.comment, wide=True),
    ),
    name=lambda image: image.name,
    id=lambda image: image.id,
    empty="no images; save one with 'calque save APP --name NAME'",
)
OPERATIONS = Kind[OperationView](
    columns=(
        Column("kind", lambda view: view.kind, firm=True),
        Column("name", lambda view: view.name),
        Column("site", lambda view: view.site),
        Column("state", lambda view: view.state, firm=True),
        Column("age", lambda view: age(view.created_at), firm=True),
        Column("id", lambda view: view.id, firm=True),
        Column("steps", _progress, wide=True),
        Column("cleanup", lambda view: view.cleanup, wide=True),
        Column("by", lambda view: view.principal, wide=True),
        Column("problem", lambda view: view.problem and view.problem.sentence(), wide=True),
    ),
    name=lambda view: view.id,
    id=lambda view: view.id,
    empty="no operations yet",
)
TEMPLATES = Kind[TemplateView](
    columns=(
        Column("name", lambda template: template.name, firm=True),
        Column("version", lambda template: template.version, firm=True),
        Column("services", lambda template: template.services),
        Column("data services", lambda template: template.data_services),
        Column("digest", lambda template: template.digest[:12]),
        Column("by", lambda template: template.applied_by),
        Column("age", lambda template: age(template.applied_at)),
        Column("description", lambda template: template.description, wide=True),
    ),
    name=lambda template: f"{template.name}@{template.version}",
    id=lambda template: f"{template.name}@{template.version}",
    empty="no templates; apply one with 'calque template apply FILE'",
)
SITES = Kind[SiteView](
    columns=(
        Column("name", lambda site: site.name, firm=True),
        Column("state", lambda site: site.state, firm=True),
        Column("apps", lambda site: site.apps),
        Column("images", lambda site: site.images),
        Column("last beat", lambda site: age(site.last_beat), firm=True),
        Column("version", lambda site: site.version),
        Column("brokers", lambda site: site.brokers),
        Column("lag", lambda site: site.lag),
    ),
    name=lambda site: site.name,
    id=lambda site: site.name,
    empty="no sites",
)
REPOSITORIES = Kind[RepositoryView](
    columns=(
        Column("site", lambda repository: repository.site),
        Column("name", lambda repository: repository.name, firm=True),
        Column("state", lambda repository: repository.state, firm=True),
        Column("images", lambda repository: len(repository.images)),
        Column("copies", lambda repository: repository.copies),
        Column("stored", lambda repository: size(repository.stored), firm=True),
        Column("signs with", lambda repository: repository.signing_key[:16]),
        Column("protocols", lambda repository: repository.protocols, wide=True),
        Column("signing key", lambda repository: repository.signing_key, wide=True, firm=True),
        Column("version", lambda repository: repository.version, wide=True),
    ),
    name=lambda repository: f"{repository.site}/{repository.name}",
    id=lambda repository: f"{repository.site}/{repository.name}",
    empty="no copy repositories; start a copy repository broker at a site",
)
BROKERS = Kind[BrokerView](
    columns=(
        Column("site", lambda broker: broker.site),
        Column("kind", lambda broker: broker.kind, firm=True),
        Column("name", lambda broker: broker.name, firm=True),
        Column("state", lambda broker: broker.state, firm=True),
        Column("types", lambda broker: broker.types),
        Column("plans", lambda broker: [plan.name for plan in broker.plans]),
        Column("engine", lambda broker: f"{broker.engine} {broker.engine_version}".strip()),
        Column("version", lambda broker: broker.version, wide=True),
    ),
    name=lambda broker: f"{broker.site}/{broker.kind}-{broker.name}",
    id=lambda broker: f"{broker.site}/{broker.kind}-{broker.name}",
    empty="no brokers",
)
SECRETS = Kind[SecretView](
    columns=(
        Column("name", lambda secret: secret.name, firm=True),
        Column("site", lambda secret: secret.site),
        Column("version", lambda secret: secret.version),
        Column("by", lambda secret: secret.set_by),
        Column("age", lambda secret: age(secret.set_at)),
    ),
    name=lambda secret: secret.name,
    id=lambda secret: f"{secret.site}/{secret.name}",
    empty="no secrets; set one with 'calque secret set NAME --site SITE'",
)
SUBSCRIPTIONS = Kind[SubscriptionPlace](
    columns=(
        Column("name", lambda place: place.name, firm=True),
        Column("principal", lambda place: place.principal),
        Column("acknowledged", lambda place: place.acknowledged, firm=True),
        Column("unacknowledged", lambda place: place.unacknowledged),
        Column("pending", lambda place: place.pending, firm=True),
        Column("sites", lambda place: place.sites),
        Column("types", lambda place: place.types),
        Column("apps", lambda place: place.apps),
        Column("age", lambda place: age(place.created_at)),
        Column("consumer", lambda place: f"{place.stream}/{place.consumer}", wide=True),
    ),
    name=lambda place: place.name,
    id=lambda place: f"{place.principal}/{place.name}",
    empty="no subscriptions; make one with 'calque events --durable NAME', or with the SDK",
)
