"""Use of a channel through its binding: whether the credentials open it. It keeps nothing that could be read back."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from brokers.testkit.checks import NotApplicable
from bus.connection import Bus, BusSettings
from schemas.brokers import Bound
from schemas.problems import CalqueError


class ChannelProbe:
    """Logs in with the binding's ``creds`` at its ``url``."""

    keeps = False

    async def write(self, bound: Bound, key: str, text: str) -> None:  # noqa: ARG002 - the form of all probes
        """A channel keeps nothing."""
        raise NotApplicable("a channel keeps nothing")

    async def read(self, bound: Bound) -> dict[str, str]:
        """Nothing is kept, so nothing is there."""
        if not await self.opens(bound):
            raise PermissionError("the credentials don't open the channel")
        return {}

    async def opens(self, bound: Bound) -> bool:
        """Whether a client with these credentials is let in."""
        with tempfile.TemporaryDirectory() as place:
            file = Path(place) / "app.creds"
            await asyncio.to_thread(file.write_text, bound.secrets["creds"].value)
            settings = BusSettings(
                servers=[bound.attributes["url"]],
                credentials_file=str(file),
                name="conformance",
                inbox_prefix=bound.attributes["inbox_prefix"],
            )
            try:
                bus = await Bus.connect(settings, deadline_seconds=5.0)
            except CalqueError as error:
                if error.problem.code == "forbidden":
                    return False
                raise
            await bus.close()
        return True


PROBE = ChannelProbe()
