"""How the story ends when a claim does not hold."""

from __future__ import annotations

from typing import NoReturn


class StoryFailedError(Exception):
    """A claim of the story did not hold; the message says which, and what was found instead."""


def fail(message: str) -> NoReturn:
    """End the story."""
    raise StoryFailedError(message) from None
