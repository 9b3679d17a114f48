"""The credentials of a principal as files to hand out: `<name>.json`, which says where the hub is and as whom to speak,
and `<name>.nk` beside it with the seed of its key. Any NATS client can use them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from hub.client.context import read_context
from hub.client.contexts import NamedContext
from hub.client.errors import ConflictError, InvalidError
from schemas import subjects
from schemas.base import Fact
from schemas.problems import conflict, invalid
from schemas.secrets import Secret

_PRIVATE = 0o600


class Credentials(Fact, frozen=True, kw_only=True):
    """What `<name>.json` holds. `nkey_seed_file` is a path relative to that file.

    Answers to commands are heard below `inbox_prefix`; the hub's JetStream is found below `jetstream_prefix`.
    """

    servers: tuple[str, ...]
    principal: str
    role: str
    nkey_seed_file: str
    inbox_prefix: str
    jetstream_prefix: str = subjects.HUB_JETSTREAM


class CredentialFiles(NamedTuple):
    """Where the credentials of one principal lie."""

    context: Path
    seed: Path

    @classmethod
    def of(cls, directory: Path, principal: str) -> CredentialFiles:
        """Those of ``principal`` in ``directory``."""
        return cls(directory / f"{principal}.json", directory / f"{principal}.nk")

    def check_new(self) -> None:
        """Raise :class:`ConflictError` when one of them is there: a seed is never written over."""
        for file in self:
            if file.exists():
                problem = conflict("out", f"{file} is there already", "choose another directory with --out")
                raise ConflictError(problem)

    def write(self, *, servers: Sequence[str], principal: str, role: str, seed: Secret) -> None:
        """Write both, the seed closed to other users. Raises :class:`InvalidError` when that is not possible."""
        content = Credentials(
            servers=tuple(servers),
            principal=principal,
            role=role,
            nkey_seed_file=self.seed.name,
            inbox_prefix=subjects.reply_prefix(principal),
        )
        try:
            self.seed.parent.mkdir(parents=True, exist_ok=True)
            self.replace_seed(seed)
            self.context.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        except OSError as error:
            problem = invalid(str(self.seed.parent), error.strerror or "not writable", "choose another with --out")
            raise InvalidError(problem) from None

    def replace_seed(self, seed: Secret) -> None:
        """Write the seed, over the one that is there. Raises ``OSError``."""
        beside = self.seed.with_name(f".{self.seed.name}.new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(seed.value + "\n")
        beside.replace(self.seed)


def named_context(file: Path) -> NamedContext:
    """The context that a credentials file speaks of. Raises :class:`InvalidError`."""
    context = read_context(file)
    return NamedContext(servers=context.servers, principal=context.principal, nkey_seed_file=context.nkey_seed_file)
