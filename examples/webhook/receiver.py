"""A receiver of webhooks, with the standard library alone: verifies each request and drops repeats.

WEBHOOK_SECRET=whsec_... python receiver.py 8099
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOLERANCE_SECONDS = 300
SECRET = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
seen: set[str] = set()


def verified(id: str, timestamp: str, signatures: str, body: bytes) -> bool:
    """Whether the request was signed with our secret, and not long ago."""
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    digest = hmac.digest(SECRET, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = b"v1," + base64.b64encode(digest)
    return any(hmac.compare_digest(expected, each.encode()) for each in signatures.split())


class Receiver(BaseHTTPRequestHandler):
    """Answers one delivery."""

    def do_POST(self) -> None:
        """204 when it is taken; anything but 2xx has it sent again."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        id = self.headers.get("webhook-id", "")
        signatures = self.headers.get("webhook-signature", "")
        if not verified(id, self.headers.get("webhook-timestamp", ""), signatures, body):
            self.send_error(401)
            return
        if id not in seen:  # a real one keeps the ids with what it does, in one transaction
            seen.add(id)
            event = json.loads(body)
            print(event["type"], event["source"], json.dumps(event["data"])[:100], flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver)
    print(f"listening on {server.server_address[1]}", flush=True)
    server.serve_forever()
