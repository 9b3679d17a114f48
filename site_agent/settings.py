"""What the agent is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from bus.settings import ProcessSettings, Section
from schemas.values import AcceptedImages, DataClass, DataServiceType
from site_agent.domain.repositories import Policy, Rule


class RepositoryRule(Section):
    """Copies for which everything that is said holds go into ``repository``; what is left out holds for all."""

    repository: str
    data_classes: list[DataClass] = []
    types: list[DataServiceType] = []
    apps: list[str] = []
    templates: list[str] = []
    data_services: list[str] = []
    at_least_bytes: int | None = Field(default=None, ge=0)
    below_bytes: int | None = Field(default=None, ge=1)

    def rule(self) -> Rule:
        """The same as decisions take it."""
        return Rule(
            repository=self.repository,
            data_classes=tuple(self.data_classes),
            types=tuple(self.types),
            apps=tuple(self.apps),
            templates=tuple(self.templates),
            data_services=tuple(self.data_services),
            at_least_bytes=self.at_least_bytes,
            below_bytes=self.below_bytes,
        )


class RepositorySection(Section):
    """Which of the site's repositories copies go into (the first rule that fits, else ``default``), how often the agent
    looks what lies there, whose signatures count besides those of the hub's sites, and how many copies are made,
    fetched and restored at once (0: no limit)."""

    rules: list[RepositoryRule] = []
    default: str | None = None
    look_every_seconds: float = Field(default=30.0, gt=0)
    trusted_signers: list[Annotated[str, Field(pattern="^[0-9a-f]{64}$")]] = []
    copies_at_once: int = Field(default=8, ge=0)

    def policy(self) -> Policy:
        """The same as decisions take it."""
        return Policy(rules=tuple(each.rule() for each in self.rules), default=self.default)


class AgentSettings(ProcessSettings):
    """``seal_key_file`` and ``secrets_key_file`` hold 32 bytes each; ``hub``: joins a hub; ``images``: which of them
    come in, all (``any``) or only ``masked`` ones."""

    PROCESS = "agent"

    site: str
    state_dir: Path
    seal_key_file: Path
    secrets_key_file: Path
    hub: bool = True
    images: AcceptedImages = "any"
    repositories: RepositorySection = RepositorySection()
