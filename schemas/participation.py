"""What somebody has to know who takes part with a stock NATS client and JSON, in words."""

from __future__ import annotations

PARAMETERS = {
    "principal": "Who sends: fixed by the key that the connection logs in with; `context.json` names it.",
    "id": "The aggregate's id. A new one is made by the sender (UUIDv7); a template's is `<name>@<version>` with every "
    "`.` of the version written as `_`.",
    "writer": "The site that wrote the event, or `hub`.",
    "site": "A site's name; `hub` stands for the hub itself in progress and heartbeats.",
    "broker": "A broker's name.",
    "operation": "An operation's id: that of the command that started it.",
    "instance": "An app instance's id.",
    "service": "The name of an app service.",
}

HOW_TO_TAKE_PART = """\
All that travels in Calque, for any language with a NATS client. Each message is one CloudEvents 1.0 envelope in JSON
(structured mode) with the one header `content-type: application/cloudevents+json`. `data` is an object of the schema
that `type` names; one JSON Schema per type lies in `json/`, `json/index.json` lists them. Readers ignore fields that
they don't know; senders of commands, queries and requests must not add any. A field with its default value is left out.

**Connect** to a server of your credentials (`calque principal add` writes them) with the nkey seed of their
`nkey_seed_file`. Your `principal` stands there too; your key lets you publish under that name only, and what your role
may say. The hub's JetStream has the API prefix `JSHUB.API`.

**Send a command.** Subscribe to an inbox of yours (`_INBOX.<principal>.<unique>`). Make a UUIDv7: it is the
envelope's `id`, the header `Nats-Msg-Id`, and the id of the operation that the command starts. Put the inbox into the
envelope's `replyto`, and into `expirytime` until when the command may be carried out (RFC 3339, at most 7 days
after `time`, and 7 days without one; a clock that is wrong by some minutes does no harm).
Publish it as a request to `calque.cmd.hub.<principal>.<aggregate>.<id>.<verb>`: JetStream replies with its
acknowledgement (`{"stream": "JOBS", "seq": n}`), which says that the command is stored and no more. The answer comes
to your inbox as an envelope of type `calque.answer.command.v1`: `accepted` (with the operation's id, when one
starts), `rejected` (with the `problem`), or `queued` (a site is away; another answer follows when it is back). If it
stays out, ask `calque.qry.command` for it, or send the same message again with the same id: a command has one effect
and one answer, however often it is sent.

The ids of things are yours to make. To deploy, make the instance's id: it stands in the subject. To save, the subject
has the instance's id and `data.image` the new image's. To run an image, the subject has the image's id and
`data.instance` the new instance's.

**Ask.** Publish a request to `calque.qry.<what>` and read the reply. A reply of type `calque.problem.v1`, with the
headers `Nats-Service-Error` and `Nats-Service-Error-Code`, says why there is none.

**Change what must not be stored.** `calque.act.<principal>.<what>` is a request like a question, under your own name:
a site's secret is set with it, sealed to the site's `seal_key` (libsodium sealed box).

**Follow events.** All events of all sites and of the hub lie in the stream `EVENTS`. To keep a place in it, ask with
`calque.act.<principal>.subscribe`; the reply names the pull consumer, from which you pull and acknowledge. Ask again at
each start. To read without a place, use direct gets from any sequence, with any filter, such as
`calque.evt.*.operation.<id>.>`. The order holds per writer. An operation has ended with its event `succeeded`, `failed`
or `cancelled`.

**Listen** to progress (`calque.progress.<site>.<operation>`, sizes in bytes), logs and heartbeats by subscribing; they
are not stored.

A `problem` has a stable `code`, the `field` or part, a `message`, a `remedy`, and the `actor` who can do something
about it: `caller`, `environment` (it passes; `retry_after_seconds`) or `broker`.
"""
