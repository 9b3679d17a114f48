"""Decisions about a copy repository as a whole: take in what lies there, verify, collect. Pure."""

from __future__ import annotations

import re

from schemas import commands as cmd
from schemas import events as ev
from schemas.names import parse_repository_token
from schemas.problems import Problem, conflict, invalid, not_found
from site_agent.domain import plans
from site_agent.domain.accepting import Decision, accept
from site_agent.domain.repositories import check_usable
from site_agent.domain.site import Draft, Site

SIGNER = re.compile("[0-9a-f]{64}")
Tending = cmd.SiteImportRepository | cmd.SiteVerifyRepository | cmd.SiteCollectRepository


def tend(site: Site, command: Tending, id: str, target: str) -> Decision:
    """``target`` is the repository as ``<site>@<name>``."""
    where = parse_repository_token(target)
    if where is None or where[0] != site.name:
        return not_found("repository", f"{target!r} is no copy repository of site {site.name}")
    name = where[1]
    if problem := check_usable(
        name, site=site.name, there=site.repositories(), known=list(site.repository_order), to_write=False
    ):
        return problem
    if busy := site.busy(target):
        return conflict(
            "repository", f"operation {busy.id} ({busy.accepted.kind}) works on repository {name!r}", "wait for it"
        )
    match command:
        case cmd.SiteImportRepository(trust=keys):
            kind, action, request = "import", plans.SCAN, {}
            trusted = _trusted(site, keys, command)
            if isinstance(trusted, Problem):
                return trusted
        case cmd.SiteVerifyRepository(copies=copies):
            kind, action, request, trusted = "verify", plans.VERIFY, {"copies": list(copies)}, []
            for copy in copies:
                if not site.holds(copy, name):
                    return not_found("copies", f"repository {name!r} of site {site.name} holds no copy {copy}")
        case _:
            kind, action, request, trusted = "collect", plans.COLLECT, {}, []
    begun = accept(
        site, command, id, kind=kind, target=target, name=name, steps=plans.tend(action, name), request=request
    )
    return [*trusted, *begun]


def _trusted(site: Site, keys: tuple[str, ...], command: cmd.SiteCommand) -> list[Draft] | Problem:
    for index, key in enumerate(keys):
        if not SIGNER.fullmatch(key):
            return invalid(f"trust[{index}]", f"{key!r} is no signing key", "write its 64 hexadecimal digits")
    new = [key for key in dict.fromkeys(keys) if key not in site.signers]
    return [Draft("signer", key, ev.SignerTrusted(by=command.by)) for key in new]
