"""The account of a principal on the hub's server: what crosses between it and the hub, and nothing else does.

Every principal has an account of its own, as every site has. Permissions within one account would not do: whoever may
send any request may name any subject for its reply, and what answers, JetStream or the hub, may publish there. (An
empty status message that was answered to `$JS.API.STREAM.DELETE.<stream>` did delete that stream.) Between accounts a
reply goes back to the asking account only.

What the hub exports stands open to every account of this server; what an account imports is what it can reach:

    calque.cmd.hub.<principal>.>            commands, all or by verb; JetStream acknowledges them
    calque.qry.<what>                       questions, by role
    calque.act.<principal>.<what>           what it changes as itself, by role; so the hub makes its consumers
    JSHUB.API.DIRECT.GET.EVENTS, ...STREAM.INFO.EVENTS
                                            reading the record without a consumer
    JSHUB.API.CONSUMER.MSG.NEXT.EVENTS.<c>, ...INFO..., $JS.ACK.EVENTS.<c>.>
                                            pulling from its own consumers `<principal>_1` ... `<principal>_17`
    _INBOX.<principal>.>                    answers to commands
    beat, progress, log                     straight from the accounts of the sites: streams are imported once only

The hub's JetStream stands below `JSHUB.API`, since below `$JS.API` every account finds its own (or an error that it has
none). A name of a subject has no wildcard for a part of a token: therefore the consumers are counted.
`CONSUMER.CREATE` is not exported: with it the hub's server could be told to deliver to any subject of the hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from hub.stack.names import HUB, site_account
from hub.stack.principals import Principal
from schemas import subjects

EXPORTS = (
    '{service: "calque.cmd.hub.>"}',
    '{service: "calque.qry.>"}',
    '{service: "calque.act.>"}',
    '{service: "$JS.API.STREAM.INFO.EVENTS"}',
    '{service: "$JS.API.DIRECT.GET.EVENTS", response_type: stream}',
    '{service: "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*", response_type: stream}',
    '{service: "$JS.API.CONSUMER.INFO.EVENTS.*"}',
    '{service: "$JS.ACK.EVENTS.>"}',
    '{stream: "_INBOX.>"}',
    '{stream: "calque.beat.hub"}',
    '{stream: "calque.progress.hub.>"}',
)
"""What the hub's account exports to principals."""
API = "$JS.API"
MOST_CONNECTIONS = 64
MOST_SUBSCRIPTIONS = 4096


def principal_account(name: str) -> str:
    """The account of a principal on the hub's server."""
    return "P_" + name.upper().replace("-", "_")


def account(principal: Principal, *, sites: Sequence[str]) -> str:
    """The account's entry in `accounts` of the hub's configuration."""
    jetstream = [*_record(principal), *_pulling(principal)]
    services = [*_commands(principal), *_queries(principal), *_acts(principal), *_acknowledging(principal)]
    streams = [(HUB.upper(), f"_INBOX.{principal.name}.>"), *(_signals(sites) if principal.hears_signals else ())]
    imports = [f'      {{service: {{account: HUB, subject: "{subject}"}}}}\n' for subject in services]
    imports += [
        f'      {{service: {{account: HUB, subject: "{API}.{call}"}}, to: "{subjects.HUB_JETSTREAM}.{call}"}}\n'
        for call in jetstream
    ]
    imports += [f'      {{stream: {{account: {source}, subject: "{subject}"}}}}\n' for source, subject in streams]
    hears = ["_INBOX.>", *(("calque.beat.>", "calque.progress.>", "calque.log.>") if principal.hears_signals else ())]
    says = [*services, *(f"{subjects.HUB_JETSTREAM}.{call}" for call in jetstream)]
    return f"""\
  {principal_account(principal.name)} {{  # principal {principal.name}, {principal.role}
    limits {{ max_conn: {MOST_CONNECTIONS}, max_subs: {MOST_SUBSCRIPTIONS} }}
    users: [ {{
      nkey: {principal.nkey}
      permissions: {{
        publish: {{allow: {_list(says, 10)}}}
        subscribe: {{allow: {_list(hears, 10)}}}
      }}
    }} ]
    imports: [
{"".join(imports)}    ]
  }}
"""


def _commands(principal: Principal) -> list[str]:
    if principal.role == "operator":
        return [f"calque.cmd.hub.{principal.name}.>"]
    found = []
    for verb in principal.verbs:
        aggregate, _, what = verb.partition(".")
        found += [f"calque.cmd.hub.{principal.name}.{aggregate}.{app}.{what}" for app in principal.apps or ("*",)]
    return found


def _queries(principal: Principal) -> list[str]:
    if principal.role == "operator":
        return [subjects.QUERIES]
    return [subjects.query(what) for what in sorted(principal.queries)]


def _record(principal: Principal) -> list[str]:
    return ["STREAM.INFO.EVENTS", "DIRECT.GET.EVENTS"] if principal.reads_record else []


def _pulling(principal: Principal) -> list[str]:
    return [
        f"CONSUMER.{call}.EVENTS.{consumer}"
        for consumer in (subjects.subscription_consumers(principal.name) if principal.subscribes else ())
        for call in ("MSG.NEXT", "INFO")
    ]


def _acts(principal: Principal) -> list[str]:
    if principal.role == "operator":
        return [f"calque.act.{principal.name}.>"]
    return [subjects.act(principal=principal.name, what=what) for what in sorted(principal.acts)]


def _acknowledging(principal: Principal) -> list[str]:
    consumers = subjects.subscription_consumers(principal.name) if principal.subscribes else ()
    return [f"$JS.ACK.EVENTS.{consumer}.>" for consumer in consumers]


def _signals(sites: Sequence[str]) -> list[tuple[str, str]]:
    found = [(HUB.upper(), "calque.beat.hub"), (HUB.upper(), "calque.progress.hub.>")]
    for site in sites:
        for subject in (f"calque.beat.{site}", f"calque.progress.{site}.>", f"calque.log.{site}.>"):
            found.append((site_account(site), subject))
    return found


def _list(entries: Iterable[str], indent: int) -> str:
    lines = "".join(f"{' ' * indent}{json.dumps(entry)}\n" for entry in entries)
    return f"[\n{lines}{' ' * (indent - 2)}]"
