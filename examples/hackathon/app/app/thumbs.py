"""Pictures of documents, and the directory that keeps them.

A picture is an SVG of the first lines of a text, or of the digest of what is no text. The directory is a cache: what
is missing in it is drawn again, and what can't be written is done without.
"""

import codecs
import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path

from .ideas import Idea

log = logging.getLogger(__name__)

KEPT_UP_TO_BYTES = 2048
"""Pictures of documents up to this size are kept. One of a bigger document shows its head only and is drawn when it is
asked for."""
_LINES = 14
_COLUMNS = 40


def drawn(idea: Idea, document: bytes) -> bytes:
    """The picture of a document: the same bytes whenever it is drawn. It names the document's SHA-256."""
    head = document[: _LINES * 200]
    try:
        # a character may be cut in two where the head ends
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) == len(document))
    except UnicodeDecodeError:
        digits = enumerate(bytes.fromhex(idea.doc_digest)[:25])
        places = ((20 + 16 * (at % 5), 20 + 16 * (at // 5), digit % 9) for at, digit in digits)
        body = "".join(f'<rect x="{x}" y="{y}" width="16" height="16" opacity="0.{dark}5"/>' for x, y, dark in places)
    else:
        lines = enumerate(text.split("\n")[:_LINES])
        body = "".join(f'<text x="4" y="{10 + 8 * at}">{escape(_visible(line))}</text>' for at, line in lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 150" data-document="{idea.doc_digest}">'
        f'<rect width="120" height="150" fill="#fff"/><g font-family="monospace" font-size="5">{body}</g></svg>\n'
    ).encode()


class Thumbs:
    """The pictures in one directory, each a file that is there whole or not at all. Calls block."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def keep(self, documents: Sequence[tuple[Idea, bytes]]) -> None:
        """Draw and keep the pictures of the documents that are not too big for it."""
        try:
            for idea, document in documents:
                if len(document) <= KEPT_UP_TO_BYTES:
                    self._write(self._file(idea.id), drawn(idea, document))
        except OSError as error:
            log.warning("previews are not kept: %s", error)

    def find(self, idea_id: str) -> bytes | None:
        """The picture that is kept, if there is one."""
        try:
            return self._file(idea_id).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("a preview cannot be read: %s", error)
            return None

    def remove(self, idea_id: str) -> None:
        """Forget a picture; one that is not there is no error."""
        with suppress(FileNotFoundError):
            try:
                self._file(idea_id).unlink()
            except PermissionError as error:
                log.warning("a preview cannot be removed: %s", error)

    def _write(self, file: Path, picture: bytes) -> None:
        file.parent.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(descriptor, "wb") as written:
                written.write(picture)
            Path(temporary).replace(file)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _file(self, idea_id: str) -> Path:
        # Few files in each directory, and no directory for each
        return self._directory / idea_id[:2] / f"{idea_id}.svg"


def _visible(line: str) -> str:
    return "".join(each if each.isprintable() else " " for each in line[:_COLUMNS])
