"""Apps whose app services are not ours. Pure."""

from __future__ import annotations

from schemas.problems import Problem, conflict
from site_agent.domain.instance import Instance


def not_run_here(instance: Instance, *, verb: str) -> Problem | None:
    """Why the app services can't be stopped or started, if they are not ours."""
    if instance.adopted:
        return conflict(
            "app",
            f"app {instance.name!r} is adopted: its app services run somewhere else",
            f"{verb} them where they run",
        )
    return None
