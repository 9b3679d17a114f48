"""Decisions about the secrets that people gave to this site. Names only; values are nowhere near."""

from __future__ import annotations

from schemas import events as ev
from schemas.problems import Problem, conflict, not_found
from schemas.site_secrets import check_reference, name_in, secret_not_set, secret_reference
from schemas.values import Requester
from site_agent.domain.site import Draft, Site


def set_secret(site: Site, name: str, *, by: Requester, id: str) -> list[Draft]:
    """The secret ``name`` has a new value; ``id`` is the request's, which takes effect once."""
    if id in site.handled:
        return []
    known = site.secrets.get(name)
    return [Draft("secret", name, ev.SecretSet(version=(known.version if known else 0) + 1, by=by))]


def why_not_removed(site: Site, name: str) -> Problem | None:
    """Why the secret ``name`` can't be removed now, if it can't."""
    known = site.secrets.get(name)
    if known is None or not known.there:
        return not_found("name", f"site {site.name} has no secret {name!r}", "see: calque secret list")
    for instance in site.instances.values():
        for service in instance.data_services.values():
            needed = service.attached is not None and service.attached.secret == secret_reference(name)
            if needed and instance.holds_name and service.state != "detached":
                return conflict(
                    "name",
                    f"app {instance.name!r} reaches its data service {service.name!r} with it",
                    "set it anew to change it, or delete that app first (its data stays)",
                )
    return None


def remove_secret(site: Site, name: str, *, by: Requester, id: str) -> list[Draft]:
    """The secret ``name`` is gone."""
    if id in site.handled or why_not_removed(site, name):
        return []
    return [Draft("secret", name, ev.SecretRemoved(by=by))]


def missing(site: Site, reference: str, *, field: str) -> Problem | None:
    """Why the reference ``secret:<name>`` leads nowhere at this site; ``None`` when it does lead somewhere."""
    if problem := check_reference(reference, field=field):
        return problem
    known = site.secrets.get(name_in(reference))
    if known is None or not known.there:
        return secret_not_set(name_in(reference), site=site.name, field=field)
    return None
