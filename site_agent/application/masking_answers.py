"""What the hub may ask about masking: what rules would do to a data service here, sealed to who asked."""

from __future__ import annotations

import secrets

import msgspec

from bus.service import Service
from schemas import brokers as wire
from schemas.envelope import Envelope
from schemas.masking import MaskingOrder
from schemas.masking_preview import MaskPreviewView, SiteMaskPreview
from schemas.masking_rules import check_masking
from schemas.problems import CalqueError, conflict, invalid, not_found
from schemas.secrets import Secret
from schemas.subjects import site_rpc
from site_agent.adapters.brokers import Brokers
from site_agent.adapters.journal import Journal
from site_agent.adapters.sealing import seal
from site_agent.application.existing import existing_of
from site_agent.application.site_secrets import SiteSecrets
from site_agent.domain.masking import why_not_maskable

PREVIEW_SECONDS = 9.0


class MaskingAnswers:
    """Nothing of it is stored; the key of a preview is of that preview alone."""

    def __init__(self, journal: Journal, *, brokers: Brokers, given: SiteSecrets) -> None:
        self._journal = journal
        self._brokers = brokers
        self._given = given

    def add_to(self, service: Service) -> None:
        """Be part of what answers the hub."""
        subject = site_rpc(site=self._journal.site.name, operation="mask_preview")
        service.endpoint("mask-preview", subject, SiteMaskPreview, MaskPreviewView, self.preview)

    async def preview(self, request: SiteMaskPreview, _: Envelope) -> MaskPreviewView:
        """Ask the data service's broker. Raises :class:`CalqueError`."""
        site = self._journal.site
        instance = site.instances.get(request.instance)
        if instance is None or instance.state == "deleted":
            raise CalqueError(not_found("app", f"site {site.name} has no app {request.instance!r}"))
        service = instance.data_services.get(request.data_service)
        if service is None:
            known = ", ".join(instance.data_services) or "none"
            message = f"app {instance.name!r} has no data service {request.data_service!r}"
            raise CalqueError(not_found("data_service", message, f"it has: {known}"))
        if request.rules.keep:
            raise CalqueError(
                invalid("rules", f"{request.data_service!r} is kept as a whole: there is nothing to show")
            )
        for problem in check_masking(request.rules, field="rules"):
            raise CalqueError(problem)
        if why := why_not_maskable(site, service):
            raise CalqueError(conflict("data_service", why, "say 'keep: true' of it if all that it holds is harmless"))
        asked = wire.PreviewMasking(
            service_id=instance.service_id(request.data_service),
            masking=MaskingOrder(rules=request.rules, key=Secret(value=secrets.token_urlsafe(32))),
            rows=request.rows,
            before=request.before,
            existing=existing_of(service, secrets=self._given),
        )
        shown = await self._brokers.once(
            "dsb", service.broker, "preview_masking", asked, wire.MaskingPreview, timeout_seconds=PREVIEW_SECONDS
        )
        return MaskPreviewView(preview=seal(msgspec.json.encode(shown), public_key=request.public_key))
