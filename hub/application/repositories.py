"""Commands about copy repositories: passed on to their site, which decides."""

from __future__ import annotations

from hub.application.context import Context
from hub.application.outcome import Forward, Outcome
from hub.domain.images import check_site_known
from hub.domain.received import Received
from schemas.commands import (
    CollectRepository,
    ImportRepository,
    SiteCollectRepository,
    SiteImportRepository,
    SiteVerifyRepository,
    VerifyRepository,
)
from schemas.names import parse_repository_token
from schemas.problems import invalid


async def tend(context: Context, received: Received) -> Outcome:
    """``repository.import``, ``repository.verify`` and ``repository.collect``"""
    where = parse_repository_token(received.aggregate_id)
    if where is None:
        return invalid("subject", f"{received.aggregate_id!r} is no copy repository", "write its id as SITE@NAME")
    site, _ = where
    if problem := check_site_known(site, sites=context.site_states()):
        return problem
    match received.command:
        case ImportRepository(trust=trust):
            return Forward(site, received.aggregate_id, SiteImportRepository(by=received.by, trust=trust))
        case VerifyRepository(copies=copies):
            return Forward(site, received.aggregate_id, SiteVerifyRepository(by=received.by, copies=copies))
    assert isinstance(received.command, CollectRepository)
    return Forward(site, received.aggregate_id, SiteCollectRepository(by=received.by))
