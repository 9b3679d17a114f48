"""The worker: sends what waits, which here means that it moves it, signed."""

from __future__ import annotations

import hashlib
import os
import threading

from letters.box import folder

PAUSE_SECONDS = 0.1


def send_all(token: str) -> None:
    """Send what waits."""
    for letter in sorted(folder("queue").iterdir()):
        signature = hashlib.sha256(token.encode() + letter.read_bytes()).hexdigest()
        (folder("sent") / letter.name).write_text(f"{letter.read_text()}\n{signature}\n")
        letter.unlink()


def main() -> None:
    """For ever, unless ``SENDING`` is off."""
    resting = threading.Event()
    while not resting.wait(PAUSE_SECONDS):
        if os.environ["SENDING"] == "on":
            send_all(os.environ["MAIL_TOKEN"])


if __name__ == "__main__":
    main()
