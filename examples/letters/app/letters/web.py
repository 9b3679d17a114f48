"""The page: ``POST /letters`` writes one, ``GET /`` tells how things are."""

from __future__ import annotations

import json
import os
import uuid
from urllib.request import urlopen

from letters.answers import Answers, serve
from letters.box import folder, marks, names


class Web(Answers):
    """Answers people."""

    def do_GET(self) -> None:
        """How things are; ``/search/WORD`` asks the index, where there is one."""
        url = os.environ.get("SEARCH_URL")
        if self.path == "/healthz":
            self.answer("well")
        elif self.path.startswith("/search/") and url:
            with urlopen(f"{url}/{self.path.removeprefix('/search/')}") as found:
                self.answer(json.load(found))
        elif self.path == "/":
            self.answer(
                {
                    "title": os.environ["TITLE"],
                    "greeting": os.environ["GREETING"],
                    "search": url is not None,
                    "queue": names("queue"),
                    "sent": names("sent"),
                    "marks": marks(),
                }
            )
        else:
            self.answer("nothing here", status=404)

    def do_POST(self) -> None:
        """A new letter."""
        text = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        name = uuid.uuid4().hex
        written = folder("written") / name
        written.write_text(f"{os.environ['GREETING']}\n{text}")
        written.rename(folder("queue") / name)
        self.answer(name, status=201)


if __name__ == "__main__":
    serve(Web)
