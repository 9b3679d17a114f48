"""What comes of a command: an answer of the hub, a problem, or a command to the site that decides."""

from __future__ import annotations

from typing import NamedTuple

from schemas.commands import Answer, SiteCommand
from schemas.problems import Problem


class Forward(NamedTuple):
    """Passed on under the same id; the site's answer is the answer."""

    site: str
    aggregate_id: str
    command: SiteCommand


Outcome = Answer | Problem | Forward
