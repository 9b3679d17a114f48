"""The app service that the kit deploys: ``python app.py`` with ``HOST`` and ``PORT``. Standard library only.

GET  /health   200, or 500 while it is ill
GET  /about    its run, its environment, and the calls that came
POST /ill, /well, /exit, /quiesce, /thaw, /refuse (409)

``python app.py hook tell|fail|linger`` is a hook: it prints ``CALQUE_HOOK`` and ``CONFORM_WORD``, then ends with 0 or
1, or takes a minute.

``CONFORM_HEALTH=never`` keeps it ill; ``CONFORM_SAY`` is printed at the start, one line for each ``|``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class App(BaseHTTPRequestHandler):
    """Answers one request."""

    run = uuid.uuid4().hex
    well = os.environ.get("CONFORM_HEALTH") != "never"
    called: list[list[object]] = []

    def answer(self, status: int, data: object) -> None:
        """Answer with JSON."""
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Health, and what is known."""
        if self.path == "/health":
            self.answer(200 if App.well else 500, "well" if App.well else "ill")
        elif self.path == "/about":
            self.answer(200, {"run": App.run, "environment": dict(os.environ), "called": App.called})
        else:
            self.answer(404, "nothing here")

    def do_POST(self) -> None:
        """What the kit makes it do."""
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length) or b"null")
        if self.path == "/exit":
            self.answer(200, "bye")
            os._exit(1)
        if self.path in ("/ill", "/well"):
            App.well = self.path == "/well"
        App.called.append([self.path, body])
        self.answer(409 if self.path == "/refuse" else 200, "done")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


def hook(name: str) -> int:
    """Be a hook; the exit code."""
    print(os.environ.get("CALQUE_HOOK", ""), os.environ.get("CONFORM_WORD", ""), flush=True)
    if name == "linger":
        threading.Event().wait(60.0)
    return 1 if name == "fail" else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["hook"]:
        sys.exit(hook(sys.argv[2]))
    for line in filter(None, os.environ.get("CONFORM_SAY", "").split("|")):
        print(line, flush=True)
    ThreadingHTTPServer((os.environ.get("HOST", ""), int(os.environ["PORT"])), App).serve_forever()
