"""What the agent is told at its start, on top of what every process on the bus is told."""

from __future__ import annotations

from pathlib import Path

from bus.settings import ProcessSettings


class AgentSettings(ProcessSettings):
    """``seal_key_file`` and ``secrets_key_file`` hold 32 bytes each; ``hub``: joins a hub."""

    site: str
    state_dir: Path
    seal_key_file: Path
    secrets_key_file: Path
    hub: bool = True
