"""A repository that is open and served: the repository, its endpoint, and the grants that name both."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from brokers.repository.endpoint import Endpoint, server_context
from brokers.repository.grants import Grants
from brokers.repository.opened import CopyRepository
from brokers.repository.settings import RepositorySettings
from brokers.repository.threads import in_thread
from brokers.repository.tokens import TokenKey
from brokers.sdk.atomic import write_atomically
from brokers.sdk.errors import temporary_error

logger = logging.getLogger(__name__)


class Served:
    """Close it to give the repository and the port to another process."""

    def __init__(self, repository: CopyRepository, endpoint: Endpoint, grants: Grants) -> None:
        self.repository = repository
        self.grants = grants
        self.endpoint = endpoint

    @classmethod
    async def begin(cls, config: RepositorySettings, open_repository: Callable[[], CopyRepository]) -> Served:
        """Opens the repository, in a thread, and listens. Raises CalqueError if one of both can't be had."""
        try:
            repository = await in_thread(open_repository)
            try:
                return await cls._listen(config, repository)
            except BaseException:
                repository.close()
                raise
        except OSError as error:
            raise temporary_error("unavailable", f"the repository can't be served: {error}") from error

    @classmethod
    async def _listen(cls, config: RepositorySettings, repository: CopyRepository) -> Served:
        state = config.state_dir
        tokens = TokenKey.load_or_create(state / "tokens.key")
        tls = server_context(certificate=config.tls.cert, key=config.tls.key, ca=config.tls.ca)
        endpoint = Endpoint(repository, tokens=tokens, tls=tls, host=config.host, bytes_per_second=config.bwlimit)
        try:
            port = await _start(endpoint, config)
            if not config.port:
                write_atomically(state / "port", str(port).encode())
            grants = Grants(
                base_url=f"https://{config.host}:{port}",
                tokens=tokens,
                certificate=config.tls.cert,
                ca=config.tls.ca,
                clock=time.time,
                near=await endpoint.start_near(),
            )
        except BaseException:
            await endpoint.stop()
            raise
        return cls(repository, endpoint, grants)

    async def close(self) -> None:
        await self.endpoint.stop()
        self.repository.close()


async def _start(endpoint: Endpoint, config: RepositorySettings) -> int:
    if config.port:
        return await endpoint.start(config.port)
    try:
        # Grants that were issued before a restart name the port.
        return await endpoint.start(_kept_port(config.state_dir / "port"))
    except OSError as error:
        logger.warning("the port of the last run is taken, another one is used: %s", error)
        return await endpoint.start(0)


def _kept_port(path: Path) -> int:
    try:
        return int(path.read_text())
    except (FileNotFoundError, ValueError):
        return 0
