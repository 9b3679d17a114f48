"""The index: which letters hold a word, ``GET /WORD``."""

from __future__ import annotations

from letters.answers import Answers, serve
from letters.box import folder


class Search(Answers):
    """Answers with names of letters."""

    def do_GET(self) -> None:
        """Look."""
        word = self.path.strip("/")
        self.answer([each.name for each in sorted(folder("sent").iterdir()) if word in each.read_text()])


if __name__ == "__main__":
    serve(Search)
