"""Can a site serve a template? An early answer from what its brokers offered; the site itself decides again, by the
same question."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.fitting import Fit, Offer, fit
from schemas.problems import Problem
from schemas.values import Choices, Template

NEEDED = frozenset({"dsb", "psb"})


def lacking(
    template: Template,
    asked: Choices,
    offer: Offer,
    *,
    made_by: Mapping[str, str],
    formats: Mapping[str, str] | None = None,
) -> list[Problem]:
    """All that the site lacks; nothing when too little is known of its brokers to tell."""
    if not {each.kind for each in offer.brokers} >= NEEDED:
        return []
    found = fit(template, asked, offer, made_by=made_by, formats=formats)
    return [] if isinstance(found, Fit) else found
