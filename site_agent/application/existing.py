"""What a broker is told of a data service that was there before: where it is, and the secret behind its reference."""

from __future__ import annotations

from schemas.brokers import Existing
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain.instance import DataService


def existing_of(service: DataService, *, secrets: SiteSecrets) -> Existing | None:
    """``None`` for a service of our own. Raises :class:`CalqueError` when its secret was taken away.

    The secret is looked up at every use, so that a new value counts from the next request on.
    """
    if service.attached is None:
        return None
    reference = service.attached.secret
    secret = secrets.resolve(reference, field=f"attach.{service.name}.secret") if reference is not None else None
    return Existing(url=service.attached.url, secret=secret)
