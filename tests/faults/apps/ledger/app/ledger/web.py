"""The HTTP side: writes that a quiesce hook holds back until it is told to go on, and no timer of its own for that."""

import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import obstore
import psycopg

from .stores import TABLES, bucket, connect

WRITE_SECONDS = 60.0


class Gate:
    """Open for writers until it is closed; closing waits for those inside."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False
        self._inside = 0

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._inside == 0, timeout=4.0)

    def open(self) -> None:
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def __enter__(self) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._closed, timeout=WRITE_SECONDS):
                raise TimeoutError("quiesced for too long")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()


GATE = Gate()
BLOBS = bucket()


def write(writer: str, seq: int) -> None:
    """One row and its object."""
    with GATE:
        with connect() as rows:
            rows.execute("INSERT INTO entries VALUES (%s, %s) ON CONFLICT DO NOTHING", (writer, seq))
        obstore.put(BLOBS, f"entries/{writer}/{seq}", f"{writer}/{seq}".encode())


def digest() -> dict[str, Any]:
    """SHA-256 over all ballast rows and ballast objects, all of them read."""
    whole = hashlib.sha256()
    with connect() as rows, rows.cursor(name="all") as cursor, rows.transaction():
        count = 0
        for id, payload in cursor.execute("SELECT id, payload FROM ballast ORDER BY id"):
            whole.update(b"%d:" % id + payload)
            count += 1
    keys = sorted(entry["path"] for chunk in obstore.list(BLOBS, prefix="ballast/") for entry in chunk)
    for key in keys:
        whole.update(key.encode() + bytes(obstore.get(BLOBS, key).bytes()))
    return {"digest": whole.hexdigest(), "rows": count, "objects": len(keys)}


def entries() -> dict[str, Any]:
    """What writers wrote, as rows and as objects, and how far the pen is."""
    with connect() as rows:
        found = rows.execute("SELECT writer, seq FROM entries ORDER BY writer, seq").fetchall()
        strokes = rows.execute("SELECT count(*), coalesce(max(seq), 0) FROM strokes").fetchone()
    keys = sorted(entry["path"] for chunk in obstore.list(BLOBS, prefix="entries/") for entry in chunk)
    return {"rows": found, "objects": keys, "strokes": strokes}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path:
            case "/healthz":
                with connect() as rows:
                    rows.execute("SELECT 1")
                self._answer(200, {"quiesced": GATE.closed})
            case "/digest":
                self._answer(200, digest())
            case "/entries":
                self._answer(200, entries())
            case _:
                self._answer(404, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self.path:
            case "/entries":
                asked = json.loads(body)
                write(asked["writer"], asked["seq"])
            case "/hooks/quiesce":
                GATE.close()
            case "/hooks/thaw":
                GATE.open()
            case "/hooks/note":
                pass  # there is nothing to be done: it is called, that is what counts
            case _:
                self._answer(404, {})
                return
        self._answer(200, {})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def main() -> None:
    with connect() as rows:
        rows.execute(TABLES)
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except psycopg.OperationalError as error:
        raise SystemExit(f"Postgres: {error}") from None
