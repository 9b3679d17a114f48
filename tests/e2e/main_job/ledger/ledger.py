"""An app that keeps two stores in step: each row of the database names an object of the bucket and its digest, and a
counter stands in both.

An entry is written object first, then row and counter in one transaction, then the bucket's counter; the oldest is
forgotten the other way round. Between two entries all is equal; in the middle of one every row's object is there.
`/check`
says what is so in the stores that it has; with `WRITES=no` it only looks. The gate holds between two entries.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
from obstore.store import S3Store

KEPT = 60
PAUSE_SECONDS = 0.01
TABLES = """
CREATE TABLE IF NOT EXISTS entry (number BIGINT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counter (number BIGINT NOT NULL);
"""


class Ledger:
    """Both stores."""

    def __init__(self) -> None:
        self.database = psycopg.connect(os.environ["ENTRIES_URI"], autocommit=True)
        self.bucket = S3Store(
            os.environ["OBJECTS_BUCKET"],
            endpoint=os.environ["OBJECTS_ENDPOINT"],
            access_key_id=os.environ["OBJECTS_ACCESS_KEY"],
            secret_access_key=os.environ["OBJECTS_SECRET_KEY"],
            region=os.environ["OBJECTS_REGION"],
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )
        self.gate = threading.Lock()
        self.ended = threading.Event()
        self.held_until = 0.0
        self.database.execute(TABLES)
        found = self.database.execute("SELECT number FROM counter").fetchone()
        self.number = int(found[0]) if found else 0
        if found is None:
            self.database.execute("INSERT INTO counter VALUES (0)")
            self.bucket.put("counter", b"0")

    def write(self) -> None:
        """One entry more."""
        number = self.number + 1
        body = os.urandom(600)
        self.bucket.put(f"entries/{number}", body)
        with self.database.transaction():
            self.database.execute("INSERT INTO entry VALUES (%s, %s)", (number, hashlib.sha256(body).hexdigest()))
            self.database.execute("UPDATE counter SET number = %s", (number,))
            self.database.execute("DELETE FROM entry WHERE number <= %s", (number - KEPT,))
        self.bucket.put("counter", str(number).encode())
        if number > KEPT:
            self.bucket.delete(f"entries/{number - KEPT}")
        self.number = number

    def write_on(self) -> None:
        """Until the process ends."""
        while not self.ended.is_set():
            with self.gate:
                if time.monotonic() >= self.held_until:
                    self.write()
            self.ended.wait(PAUSE_SECONDS)

    def quiesce(self, seconds: float) -> None:
        """Returns between two entries; none follows until `thaw`, or until so many seconds have passed."""
        with self.gate:
            self.held_until = time.monotonic() + seconds

    def thaw(self) -> bool:
        """Whether none was written since `quiesce`."""
        held = time.monotonic() < self.held_until
        self.held_until = 0.0
        return held

    def check(self) -> dict[str, object]:
        """What is so now."""
        with self.gate, self.database.transaction():
            rows = self.database.execute("SELECT number, digest FROM entry ORDER BY number").fetchall()
            counted = self.database.execute("SELECT number FROM counter").fetchone()
            bad = [number for number, digest in rows if self._digest(number) != digest]
            other = int(bytes(self.bucket.get("counter").bytes()))
        return {
            "rows": len(rows),
            "last": rows[-1][0] if rows else 0,
            "counter": counted[0] if counted else None,
            "other": other,
            "bad": bad,
        }

    def _digest(self, number: int) -> str:
        try:
            return hashlib.sha256(bytes(self.bucket.get(f"entries/{number}").bytes())).hexdigest()
        except FileNotFoundError:
            return "missing"


class Handler(BaseHTTPRequestHandler):
    """`/healthz`, `/check`, and the two hooks."""

    ledger: Ledger

    def do_GET(self) -> None:
        self._answer(self.ledger.check() if self.path == "/check" else {"number": self.ledger.number})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/hooks/quiesce":
            self.ledger.quiesce(float(json.loads(body or b"{}").get("deadline_seconds", 60)))
            self._answer({"held": True})
        else:
            self._answer({"held": self.ledger.thaw()})

    def _answer(self, found: dict[str, object]) -> None:
        body = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Requests are not logged."""


def main() -> None:
    Handler.ledger = Ledger()
    if os.environ.get("WRITES") != "no":
        threading.Thread(target=Handler.ledger.write_on, daemon=True).start()
    ThreadingHTTPServer((os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])), Handler).serve_forever()


if __name__ == "__main__":
    main()
