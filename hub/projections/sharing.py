"""One object for each template, however many instances and images carry it whole."""

from __future__ import annotations

import msgspec

from schemas.values import ImageContent, Template

MOST = 20_000
"""So many are remembered before all are forgotten: what is shared then stays shared."""

_encoder = msgspec.json.Encoder()


class SharedTemplates:
    """Templates by their bytes: those that are equal but not the same in writing (the order of their parts) stay apart,
    so that sharing can't be seen from outside."""

    def __init__(self) -> None:
        self._known: dict[bytes, Template] = {}

    def one(self, template: Template) -> Template:
        """The template, or the same one that was there before."""
        if len(self._known) >= MOST:
            self._known.clear()
        try:
            return self._known.setdefault(_encoder.encode(template), template)
        except (OverflowError, ValueError):
            return template  # it holds a number that could be read and can't be written

    def in_content(self, content: ImageContent) -> None:
        """Have the content of an image refer to templates that were there before. It stays what it was."""
        for instance in content.instances:
            configuration = instance.configuration
            msgspec.structs.force_setattr(configuration, "template", self.one(configuration.template))
