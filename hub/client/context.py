"""How to reach a hub: the home directory and the context file in it, which the stack writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from hub.client.errors import HubUnreachableError, InvalidError
from schemas import subjects
from schemas.base import Fact
from schemas.problems import Actor, Problem, invalid

FILE = "context.json"


class Context(Fact, frozen=True, kw_only=True):
    """Where the hub's NATS servers are and as whom to speak. ``principal`` is pinned by the key's permissions.

    ``jetstream_prefix`` is where the server offers the hub's JetStream: ``JSHUB.API``, or ``$JS.API`` on a server
    without accounts.
    """

    servers: tuple[str, ...]
    principal: str
    nkey_seed_file: str | None = None
    jetstream_prefix: str = subjects.HUB_JETSTREAM


def home_directory(chosen: str | Path | None = None, *, environment: Mapping[str, str] | None = None) -> Path:
    """The home: ``chosen``, else ``CALQUE_HOME``, else ``$XDG_DATA_HOME/calque``, else ``~/.local/share/calque``."""
    variables = os.environ if environment is None else environment
    if chosen:
        return Path(chosen).expanduser().absolute()
    if home := variables.get("CALQUE_HOME"):
        return Path(home).expanduser().absolute()
    if data := variables.get("XDG_DATA_HOME"):
        return Path(data) / "calque"
    return Path("~/.local/share/calque").expanduser()


def load_context(home: Path) -> Context:
    """The context of ``home``; a relative seed file is below it.

    Raises :class:`HubUnreachableError` when there is none, :class:`InvalidError` when it is damaged.
    """
    try:
        return read_context(home / FILE)
    except FileNotFoundError:
        raise HubUnreachableError(
            Problem(
                code="unreachable",
                message=f"there is no hub in {home}",
                actor=Actor.ENVIRONMENT,
                remedy="start one with 'calque up', or name its home with --home or CALQUE_HOME",
            )
        ) from None


def read_context(file: Path) -> Context:
    """The context, or the credentials, in ``file``; a relative seed file is beside it.

    Raises ``FileNotFoundError``, or :class:`InvalidError` when it is damaged.
    """
    try:
        context = msgspec.json.decode(file.read_bytes(), type=Context)
    except FileNotFoundError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(invalid(str(file), f"it is damaged: {error}", "start 'calque up' again")) from None
    except OSError as error:
        raise InvalidError(invalid(str(file), error.strerror or "not readable", "make it readable")) from None
    seed = context.nkey_seed_file
    return msgspec.structs.replace(context, nkey_seed_file=str(file.parent / seed) if seed else None)
