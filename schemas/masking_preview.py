"""What masking rules would do to a running app: asked by a person, answered by its site, sealed to who asked."""

from __future__ import annotations

from schemas.masking import Masking
from schemas.questions import Query, View
from schemas.registry import message
from schemas.secrets import Sealed


@message("query.mask_preview")
class MaskPreviewQuery(Query, frozen=True, kw_only=True):
    """What would ``rules`` do to a data service of an app (its name or id)? With ``rows``, of each table that they
    change the first rows are told, masked; with ``before`` also as they are.

    The answer is sealed to ``public_key`` (X25519, hex) of the caller.
    """

    app: str
    data_service: str
    rules: Masking
    public_key: str
    rows: int = 0
    before: bool = False


@message("rpc.mask_preview")
class SiteMaskPreview(Query, frozen=True, kw_only=True):
    """The same, of an instance of this site."""

    instance: str
    data_service: str
    rules: Masking
    public_key: str
    rows: int = 0
    before: bool = False


@message("view.mask_preview")
class MaskPreviewView(View, frozen=True, kw_only=True):
    """A JSON ``MaskingPreview`` (``calque.reply.dsb.preview_masking``), sealed to who asked."""

    preview: Sealed
