"""What can go wrong while a stack is built or run."""

from __future__ import annotations


class StackError(Exception):
    """The stack can't be built or run; the text names the part, the cause and what to do."""


class HomeInUse(StackError):
    """Another process runs a stack on this home."""


class PartFailed(StackError):
    """A part exited or did not become ready in time; the text ends with the last lines it wrote."""


class NotReady(StackError):
    """A ready check reached its deadline; the text says what was seen last."""
