"""Sites that take masked images only: what of an image they refuse. Pure; sites decide by it, hubs tell early."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.problems import Problem, conflict
from schemas.values import AcceptedImages, ImagePart


def not_accepted(site: str, accepted: AcceptedImages, parts: Iterable[ImagePart]) -> Problem | None:
    """Why these parts of an image may not come to ``site``, which lets in what is ``accepted``; ``None``: they may."""
    if accepted != "masked":
        return None
    for part in parts:
        if part.masked is None:
            return conflict(
                f"data_services.{part.data_service}",
                f"site {site} takes masked images only, and data service {part.data_service!r} of this one is unmasked",
                "save the app again with --masked, or use another site",
            )
        if part.masked.subset and not part.masked.columns and not part.masked.keep:
            return conflict(
                f"data_services.{part.data_service}",
                f"site {site} takes masked images only, and of data service {part.data_service!r} of this one rows "
                "were left out, but no column was masked",
                "write rules for its columns and save the app again, or use another site",
            )
    return None
