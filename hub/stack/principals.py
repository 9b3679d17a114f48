"""Principals: who may speak to the hub from outside, in which role, and the file that keeps them.

A role says what a principal's credential lets it do; the server holds it to that. `principals.json` beside the keys of
a home holds the public key of each; the seed stands in the credentials that were handed out, and nowhere else.

| role | commands | questions | the record of events | subscriptions of its own |
| --- | --- | --- | --- | --- |
| `operator` | all | all | yes | yes, and it sees and removes those of others |
| `publisher` | the verbs that it was given | of apps, images, operations, sites | no | no |
| `subscriber` | none | of apps, images, operations, sites | yes | yes |
| `viewer` | none | these, logs, repositories | yes | no |
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from hub.stack.errors import StackError
from hub.stack.files import PRIVATE_FILE, private_directory, read_json, write_json
from hub.stack.names import HUB, check_name
from schemas.commands import Command
from schemas.queries import QUERIES, WEBHOOK_QUERIES
from schemas.registry import MESSAGES

Role = Literal["operator", "publisher", "subscriber", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)
OPEN_QUERIES = frozenset(
    {"status", "hubs", "templates", "apps", "images", "operations", "sites", "brokers", "command", "plan"}
)
"""What every principal may ask."""
PRIVATE_QUERIES = frozenset({"logs", "repositories", "repository", "webhooks", *WEBHOOK_QUERIES})
"""What operators and viewers may ask besides: what an app's services wrote, which may be anything; repositories;
where events are sent on to."""
OPERATORS_QUERIES = frozenset(
    (
        *("binding", "mask_preview", "secrets", "scan", "letters", "letter", "strays", "snapshots", "rebuild", "room"),
        "condition",
    )
)
"""What is answered to operators only: secrets, rows of databases, what makes a site work for it, messages as their
senders wrote them, the hub's own affairs."""
SUBSCRIBERS_ACTS = frozenset({"subscribe", "subscriptions", "unsubscribe"})
"""What subscribers may do as themselves; operators may do all such things, others none."""
_OF_APPS = "instance"
_MAKES_APPS = "deploy"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """One principal. `nkey` is its public key.

    `verbs` are `<aggregate>.<verb>` of the commands that a publisher may send; `apps` are the ids of the apps that it
    may send them for, all if there are none.
    """

    name: str
    nkey: str
    role: Role = "operator"
    verbs: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()

    @property
    def reads_record(self) -> bool:
        """Whether it may read the record of events."""
        return self.role != "publisher"

    @property
    def subscribes(self) -> bool:
        """Whether it may have durable subscriptions."""
        return self.role in ("operator", "subscriber")

    @property
    def hears_signals(self) -> bool:
        """Whether it may listen to heartbeats, progress and logs."""
        return self.role in ("operator", "viewer")

    @property
    def acts(self) -> frozenset[str]:
        """What it may change as itself, besides by commands; an operator may do all."""
        return SUBSCRIBERS_ACTS if self.subscribes else frozenset()

    @property
    def queries(self) -> frozenset[str]:
        """What it may ask; an operator may ask all, also what is new."""
        if self.role == "operator":
            return frozenset(QUERIES | WEBHOOK_QUERIES)
        return OPEN_QUERIES | PRIVATE_QUERIES if self.role == "viewer" else OPEN_QUERIES


def commands_to_the_hub() -> tuple[str, ...]:
    """`<aggregate>.<verb>` of every command that clients send."""
    return tuple(
        sorted(
            f"{kind.AGGREGATE}.{kind.VERB}"
            for name, kind in MESSAGES.items()
            if name.startswith("calque.command.hub.") and issubclass(kind, Command)
        )
    )


def checked(principal: Principal) -> Principal:
    """The principal with its verbs in full. Raises `StackError` for what can't be.

    A bare verb means that of every aggregate which has it: `delete` is `instance.delete` and `image.delete`.
    """
    if check_name(principal.name, what="principal") == HUB:
        raise StackError("principal 'hub': this name belongs to the hub; choose another")
    if principal.role not in ROLES:
        raise StackError(f"role {principal.role!r}: use one of {', '.join(ROLES)}")
    if principal.role != "publisher" and (principal.verbs or principal.apps):
        raise StackError(f"role {principal.role}: verbs and apps are for publishers; leave them out")
    if principal.role == "publisher" and not principal.verbs:
        raise StackError(f"role publisher: name the verbs that it may send: {', '.join(commands_to_the_hub())}")
    verbs = _in_full(principal.verbs)
    if principal.apps:
        for verb in verbs:
            aggregate, _, what = verb.partition(".")
            if aggregate != _OF_APPS or what == _MAKES_APPS:
                raise StackError(f"verb {verb}: it is not about an app that is there, so it can't be limited to apps")
    return Principal(
        name=principal.name, nkey=principal.nkey, role=principal.role, verbs=verbs, apps=tuple(principal.apps)
    )


def _in_full(verbs: Sequence[str]) -> tuple[str, ...]:
    known = commands_to_the_hub()
    found: dict[str, None] = {}
    for verb in verbs:
        meant = [each for each in known if verb in (each, each.partition(".")[2])]
        if not meant:
            raise StackError(f"verb {verb!r}: there is no such command; use some of {', '.join(known)}")
        found.update(dict.fromkeys(meant))
    return tuple(found)


class Registry:
    """The principals of a home that were added to the ones it was made with."""

    def __init__(self, keys: Path) -> None:
        self._file = keys / "principals.json"
        self._lock = keys / "principals.lock"

    def load(self) -> Mapping[str, Principal]:
        """All of them by name. Raises `StackError` when the file is damaged."""
        try:
            document: dict[str, dict[str, Any]] = read_json(self._file) or {}
            return {name: checked(Principal(**_tuples(entry))) for name, entry in document.items()}
        except (ValueError, TypeError, AttributeError) as cause:
            raise StackError(f"{self._file} is damaged ({cause}): repair or remove it") from cause

    def save(self, principals: Collection[Principal]) -> None:
        """Replace them all."""
        write_json(self._file, {each.name: asdict(each) for each in sorted(principals, key=lambda each: each.name)})

    @contextmanager
    def changing(self) -> Iterator[dict[str, Principal]]:
        """What is there now, to be changed; it is saved at the end, and nobody else changes it meanwhile."""
        private_directory(self._lock.parent)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            principals = dict(self.load())
            yield principals
            self.save(principals.values())
        finally:
            os.close(descriptor)


def _tuples(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
