"""What clients change as themselves without a trace of it in a command stream: the secrets of sites.

The hub says who asked - the subject does, which the sender's credential pins - and passes on what it can't open.
"""

from __future__ import annotations

from hub.application.context import Context
from schemas.envelope import Envelope
from schemas.names import check_name
from schemas.problems import CalqueError, invalid, not_found
from schemas.site_secrets import RemoveSecret, SecretChanged, SetSecret, SiteRemoveSecret, SiteSetSecret
from schemas.subjects import SubjectError, principal_of
from schemas.values import Requester


class Acts:
    """One method per act. Each raises :class:`CalqueError` with the problem that the caller gets."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def secret_set(self, request: SetSecret, _envelope: Envelope, subject: str) -> SecretChanged:
        """``secret_set``"""
        self._check(request.site, request.name)
        question = SiteSetSecret(id=request.id, name=request.name, sealed=request.sealed, by=_requester(subject))
        return await self._context.outbound.ask_site(request.site, "secret_set", question, SecretChanged)

    async def secret_remove(self, request: RemoveSecret, _envelope: Envelope, subject: str) -> SecretChanged:
        """``secret_remove``"""
        self._check(request.site, request.name)
        question = SiteRemoveSecret(id=request.id, name=request.name, by=_requester(subject))
        return await self._context.outbound.ask_site(request.site, "secret_remove", question, SecretChanged)

    def _check(self, site: str, name: str) -> None:
        known = self._context.site_states()
        if site not in known:
            raise CalqueError(
                not_found("site", f"there is no site {site!r}", f"use one of: {', '.join(sorted(known))}")
            )
        if problem := check_name(name, field="name"):
            raise CalqueError(problem)


def _requester(subject: str) -> Requester:
    try:
        return Requester(principal=principal_of(subject))
    except SubjectError as error:
        raise CalqueError(invalid("subject", str(error))) from None
