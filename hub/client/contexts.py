"""Named contexts: several hubs to speak to, one of them current, and which one is meant now.

They lie in ``$XDG_CONFIG_HOME/calque/contexts.json`` (else ``~/.config/calque/contexts.json``). Seeds of keys are
never copied there: a context names the home of a stack, or a seed file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from hub.client.context import Context, home_directory, load_context
from hub.client.errors import ConflictError, InvalidError, NotFoundError
from schemas.base import Fact
from schemas.names import check_name
from schemas.problems import CalqueError, conflict, invalid, not_found

VARIABLE = "CALQUE_CONTEXT"


class NamedContext(Fact, frozen=True, kw_only=True):
    """A hub to speak to: that of a stack's ``home``, or ``servers`` with ``principal`` and its seed file."""

    home: str | None = None
    servers: tuple[str, ...] = ()
    principal: str = ""
    nkey_seed_file: str | None = None


class Contexts(Fact, frozen=True, kw_only=True):
    """The file. ``current`` is the one that is used when nothing else is said."""

    current: str | None = None
    contexts: dict[str, NamedContext] = {}


class Choice(NamedTuple):
    """The hub that is meant, and why. ``name`` is ``None`` for a home that was not chosen by a context."""

    name: str | None
    context: NamedContext
    why: str

    @property
    def home(self) -> Path | None:
        """The home of the stack; ``None`` when the context names servers."""
        return Path(self.context.home) if self.context.home else None

    def load(self) -> Context:
        """How to connect; raises as :func:`hub.client.context.load_context`."""
        if self.home is not None:
            return load_context(self.home)
        named = self.context
        return Context(servers=named.servers, principal=named.principal, nkey_seed_file=named.nkey_seed_file)


def contexts_file(*, environment: Mapping[str, str] | None = None) -> Path:
    """Where the named contexts lie."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path("~/.config").expanduser()) / "calque" / "contexts.json"


def load_contexts(file: Path) -> Contexts:
    """What is in ``file``; nothing when there is none. Raises :class:`InvalidError` when it is damaged."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidError(invalid(str(file), f"it is damaged: {error}", "repair or remove it")) from None
    except OSError as error:
        raise InvalidError(invalid(str(file), error.strerror or "not readable", "make it readable")) from None


def save_contexts(file: Path, contexts: Contexts) -> None:
    """Write them, whole or not at all. Raises :class:`InvalidError` when the file can't be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(contexts), indent=2) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except OSError as error:
        raise InvalidError(invalid(str(file), error.strerror or "not writable", "make it writable")) from None


def added(contexts: Contexts, name: str, context: NamedContext, *, replace: bool = False) -> Contexts:
    """With ``context`` as ``name``; the first one becomes current. Raises :class:`CalqueError`."""
    if problem := check_name(name, field="name"):
        raise CalqueError(problem)
    if not replace and contexts.contexts.get(name, context) != context:
        raise ConflictError(conflict("name", f"there is a context {name!r} already", "replace it with --replace"))
    return Contexts(current=contexts.current or name, contexts={**contexts.contexts, name: context})


def used(contexts: Contexts, name: str) -> Contexts:
    """With ``name`` as the current one. Raises :class:`NotFoundError`."""
    _get(contexts, name)
    return msgspec.structs.replace(contexts, current=name)


def removed(contexts: Contexts, name: str) -> Contexts:
    """Without ``name``; if it was current, none is. Raises :class:`NotFoundError`."""
    _get(contexts, name)
    left = {each: context for each, context in contexts.contexts.items() if each != name}
    return Contexts(current=None if contexts.current == name else contexts.current, contexts=left)


def choose(
    *,
    context: str | None = None,
    home: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Choice:
    """The hub that is meant: flags before the environment, the environment before the current context.

    ``--context``, ``--home``, ``CALQUE_CONTEXT``, ``CALQUE_HOME``, the current context, the default home.
    Raises :class:`NotFoundError` for a context that is not there, :class:`InvalidError` for a damaged file.
    """
    variables = os.environ if environment is None else environment
    place = file or contexts_file(environment=variables)
    if context:
        return Choice(context, _get(load_contexts(place), context), "--context")
    if home:
        return Choice(None, NamedContext(home=str(home_directory(home))), "--home")
    if named := variables.get(VARIABLE):
        return Choice(named, _get(load_contexts(place), named), VARIABLE)
    if variables.get("CALQUE_HOME"):
        return Choice(None, NamedContext(home=str(home_directory(environment=variables))), "CALQUE_HOME")
    known = load_contexts(place)
    if known.current:
        return Choice(known.current, _get(known, known.current), "the current context")
    return Choice(None, NamedContext(home=str(home_directory(environment=variables))), "the default home")


def _get(contexts: Contexts, name: str) -> NamedContext:
    found = contexts.contexts.get(name)
    if found is None:
        there = ", ".join(sorted(contexts.contexts))
        remedy = f"use one of: {there}" if there else "add one with 'calque context add'"
        raise NotFoundError(not_found("context", f"there is no context {name!r}", remedy))
    return found
