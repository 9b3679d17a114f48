"""Errors of the API server, and the problems that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.problems import Problem, permanent, temporary


class ApiError(Exception):
    """The API server refused. ``status`` is the HTTP status, ``reason`` its word for it (``AlreadyExists``, ...)."""

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after_seconds: float | None = None, doing: str = ""
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.doing = doing

    @classmethod
    def of_status(cls, status: Mapping[str, Any], *, retry_after: str | None = None, doing: str = "") -> ApiError:
        """From the ``Status`` object that the server answers with."""
        details = status.get("details") or {}
        seconds: Any = retry_after or details.get("retryAfterSeconds")
        try:
            wait = float(seconds) if seconds is not None else None
        except ValueError:  # a date; no API server sends one
            wait = None
        return cls(
            int(status.get("code") or 500),
            str(status.get("reason") or ""),
            str(status.get("message") or ""),
            retry_after_seconds=wait,
            doing=doing,
        )


class Unreachable(Exception):
    """The API server, or the pod behind it, was not reached."""


def problem_of(error: BaseException) -> Problem | None:
    """The problem for whoever asked for the operation."""
    if isinstance(error, Unreachable):
        return temporary("unavailable", str(error), retry_after_seconds=2.0)
    if not isinstance(error, ApiError):
        return None
    said = error.message or error.reason or f"status {error.status}"
    if error.status == 429 or error.status >= 500:
        wait = error.retry_after_seconds or 2.0
        return temporary("unavailable", f"the API server answered {error.status}: {said}", retry_after_seconds=wait)
    if error.status == 409:
        return temporary("changed_in_cluster", f"somebody else changed it meanwhile: {said}", retry_after_seconds=1.0)
    if error.status in (401, 403):
        if "exceeded quota" in said:
            return temporary("quota", said, retry_after_seconds=30.0)
        return permanent(
            "no_rights",
            f"the cluster does not let the broker do this: {said}",
            remedy="give the broker's account the rights in deploy/kubernetes/role.yaml",
        )
    if error.status == 404 and "namespaces" in said:
        return permanent(
            "no_namespace", f"{said}", field="space", remedy="make the namespace, or set create_namespaces"
        )
    return permanent("refused_by_cluster", f"the API server refused: {said}")
