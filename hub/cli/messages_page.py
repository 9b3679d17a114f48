"""``docs/messages.md``: every message that travels, from the types and what they say of themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from schemas.asyncapi import Channel, channels
from schemas.json_schemas import message_types

_HEAD = """\
# Messages

Made from the types by `python -m hub.cli.pages` (`make generate`); `make check` holds it to that.

Everything travels in a CloudEvents 1.0 envelope, one JSON document, whose `type` is below and whose `data` has the
fields of the JSON Schema of that name in [`schemas/generated/json`](../schemas/generated/json). How to take part with a
stock NATS client is said in [`asyncapi.json`](../schemas/generated/asyncapi.json), with an example of each message.
`<site>` is a site's name, `<writer>` a site's or `hub`, `<principal>` the sender as its credential names it.
"""
_SECTIONS = (
    (
        "command.hub",
        "Commands to the hub",
        "A client publishes them; they are stored before anything else. Answered by `calque.answer.command.v1` on the"
        " inbox that `replyto` names, and again by the query `command`. The id is the id of the operation it starts.",
    ),
    ("command.site", "Commands to a site", "Only the hub publishes them; a site's own clients may locally."),
    ("event", "Events", "Facts, written once, never changed, in the order of their writer. Read them from `EVENTS`."),
    ("query", "Queries", "Any hub answers at once; nothing is stored. A failure is answered by `calque.problem.v1`."),
    ("rpc", "What the hub asks a site", ""),
    ("ask", "What a site asks the hub", ""),
    ("request", "Requests to brokers", "They stay at the site. Long ones are answered by `calque.reply.outcome.v1`."),
    ("signal", "Signals", "Not stored: whoever listens hears them."),
)
_REST = "Replies and other content"


def messages_page() -> str:
    """The whole page."""
    return _HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    by_type: dict[str, list[Channel]] = {}
    for channel in channels():
        by_type.setdefault(channel.message.TYPE, []).append(channel)  # type: ignore[attr-defined]
    left = dict(message_types())
    for prefix, title, text in _SECTIONS:
        names = sorted(name for name in left if name.startswith(f"calque.{prefix}."))
        yield f"\n## {title}\n" + (f"\n{text}\n" if text else "")
        yield _table(("type", "subject", "reply", "meaning"), [_row(name, left.pop(name), by_type) for name in names])
    yield f"\n## {_REST}\n"
    yield _table(("type", "meaning"), [(f"`{name}`", _meaning(kind)) for name, kind in sorted(left.items())])


def _row(name: str, kind: type, by_type: dict[str, list[Channel]]) -> tuple[str, str, str, str]:
    mine = by_type.get(name, [])
    subjects = [f"`{channel.address.replace('{', '<').replace('}', '>')}`" for channel in mine if channel.address]
    replies = {f"`{channel.reply.TYPE}`" for channel in mine if channel.reply is not None}  # type: ignore[attr-defined]
    return f"`{name}`", "<br>".join(subjects), ", ".join(sorted(replies)), _meaning(kind)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n" + "".join("| " + " | ".join(row) + " |\n" for row in lines)


def _meaning(kind: type) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split()).replace("``", "`").replace("|", "\\|")
