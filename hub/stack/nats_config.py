"""The configuration of the hub's NATS server and of a site's, as text made from typed settings.

One account per site on the hub's server, and one per principal (`nats_principals`); the site's own server is a
leaf node that dials out into its site's account. Between that and the hub's crosses only what stands in
`_site_exports`, `_site_imports`, `_hub_exports` and `_hub_imports`, and the leaf's user may speak and hear only that:

    events      site -> hub   delivery of the durable consumer `hub` on `EVT_<site>`, its flow control, reset
    commands    hub -> site   the site pulls and acknowledges on its own durable of `CMD`, nothing else
    rpc         hub -> site   request/reply, several replies possible (a listing, a stream of log lines)
    ask         site -> hub   request/reply, one reply
    beat, progress, log       site -> hub, and principals that may hear them; the hub's own heartbeat to every site

`CONSUMER.CREATE` is never exported to a site: with it a site could have the hub deliver messages to
subjects of the site's choice. `js_ack_fc_v2` is off, since clients in use break on it. A site's
server syncs each write: its outbox is the only copy of an event until the hub has it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub.stack import nats_principals
from hub.stack.names import HUB, check_site, site_account
from hub.stack.ports import LOOPBACK
from hub.stack.principals import Principal
from schemas.queries import WEBHOOK_ACTS, WEBHOOK_QUERIES
from schemas.subjects import acts, query

STREAMS_OF_THE_HUB = 20
STREAMS_PER_SITE = 4
CONSUMERS = 500
AGENT_INBOX = "_AGENT"
"""Where replies to a site's agent go. They may hold secrets: brokers, which share its account, can't listen there."""
HUB_INBOX = "_HUB"
"""Where replies to the hub go: no principal imports it."""
WEBHOOKS_INBOX = "_WEBHOOKS"
"""Where replies to the process of the webhooks go."""
STAYS_AT_ITS_END = ("calque.req.>", "calque.evt.>", "calque.cmd.>", "calque.qry.>", "calque.act.>", "$SRV.>")
"""Subjects that a leaf connection never carries as such, in either direction."""


@dataclass(frozen=True, kw_only=True)
class TlsPaths:
    """PEM files as they are to stand in a configuration."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True, kw_only=True)
class SiteLogin:
    """A site as the hub's server knows it: its name and the public nkey of its leaf connection."""

    site: str
    leaf_nkey: str


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What joins the servers of one hub: the port of this one for the others, the URLs of the others, and certificates
    of an authority that signs for nobody else (a site that could speak as a server would be inside)."""

    port: int
    routes: Sequence[str]
    tls: TlsPaths


@dataclass(frozen=True, kw_only=True)
class HubServer:
    """Settings of the hub's server, or of one of them: then it has a ``name`` of its own and a ``cluster``.

    Ports are on the loopback address; sizes are in bytes.
    """

    port: int
    monitor_port: int
    leaf_port: int
    store_dir: str
    tls: TlsPaths
    system_nkey: str
    service_nkey: str
    webhooks_nkey: str | None = None
    principals: Sequence[Principal] = ()
    sites: Sequence[SiteLogin] = ()
    max_store_bytes: int = 10 << 30
    name: str = HUB
    cluster: Cluster | None = None


@dataclass(frozen=True, kw_only=True)
class SiteServer:
    """Settings of a site's server, which dials one of `hub_leaf_urls`, and another one when that is gone.

    The leaf's seed comes from the environment variable `seed_variable`.
    """

    site: str
    port: int
    monitor_port: int
    hub_leaf_urls: Sequence[str]
    store_dir: str
    tls: TlsPaths
    system_nkey: str
    agent_nkey: str
    brokers: Mapping[str, str] = field(default_factory=dict)
    seed_variable: str = "LEAF_SEED"
    max_store_bytes: int = 10 << 30


def hub_config(server: HubServer) -> str:
    """The configuration of the hub's server."""
    sites = [check_site(login.site) for login in server.sites]
    streams = STREAMS_OF_THE_HUB + STREAMS_PER_SITE * len(sites)
    # What an account may store counts every replica.
    max_file = server.max_store_bytes * (1 if server.cluster is None else 1 + len(server.cluster.routes))
    users = [f"{{nkey: {server.service_nkey}}}  # the hub: everything in this account"]
    if server.webhooks_nkey is not None:
        users.append(_webhooks(server.webhooks_nkey))
    exports = [*nats_principals.EXPORTS, *_hub_exports(sites)]
    principals = "".join(nats_principals.account(each, sites=sites) for each in server.principals)
    return f"""\
# The hub's server. Written by hub/stack/nats_config.py: change that, not this.
server_name: {server.name}
listen: "{LOOPBACK}:{server.port}"
http: "{LOOPBACK}:{server.monitor_port}"
ping_interval: "5s"
ping_max: 2
write_deadline: "10s"
max_payload: 1MB
feature_flags {{ js_ack_fc_v2: false }}
jetstream {{
  store_dir: {_text(server.store_dir)}
  domain: {HUB}
  max_file_store: {server.max_store_bytes}
  strict: true
}}
{_cluster(server.cluster) if server.cluster else ""}leafnodes {{
  listen: "{LOOPBACK}:{server.leaf_port}"
  no_advertise: true
  isolate_leafnode_interest: true  # nothing of one site's interest is told to another
  compression: s2_auto
  tls {{
    {_tls(server.tls)}
    verify: true
    handshake_first: true
  }}
}}
system_account: SYS
no_auth_user: nobody
accounts {{
  SYS {{ users: [ {{nkey: {server.system_nkey}}} ] }}
  NONE {{
    users: [ {{
      user: nobody
      password: nobody
      permissions: {{publish: {{deny: ">"}}, subscribe: {{deny: ">"}}}}
    }} ]
  }}
  HUB {{
    jetstream: {{ max_file: {max_file}, max_streams: {streams}, max_consumers: {CONSUMERS} }}
    users: [
{_lines(users, 6)}
    ]
    exports: [
{_lines(exports, 6)}
    ]
    imports: [
{_lines([line for site in sites for line in _hub_imports(site)], 6)}
    ]
  }}
{"".join(_site_on_hub(login) for login in server.sites)}{principals}}}
"""


def site_config(server: SiteServer) -> str:
    """The configuration of a site's server."""
    site = check_site(server.site)
    users = [f"{{nkey: {server.agent_nkey}}}  # the agent: everything in this account"]
    users += [_broker(site, name, nkey) for name, nkey in server.brokers.items()]
    return f"""\
# The server of site {site}. Written by hub/stack/nats_config.py: change that, not this.
server_name: {site}
listen: "{LOOPBACK}:{server.port}"
http: "{LOOPBACK}:{server.monitor_port}"
ping_interval: "5s"
ping_max: 2
write_deadline: "10s"
max_payload: 1MB
feature_flags {{ js_ack_fc_v2: false }}
jetstream {{
  store_dir: {_text(server.store_dir)}
  domain: {site}
  max_file_store: {server.max_store_bytes}
  strict: true
  sync_interval: always  # an acknowledged event outlives a power cut
}}
leafnodes {{
  reconnect: "1s"
  remotes: [ {{
    urls: {_subjects(server.hub_leaf_urls)}
    account: SITE
    nkey: ${server.seed_variable}
    first_info_timeout: "5s"
    tls {{
      {_tls(server.tls, indent=6)}
      handshake_first: true
    }}
    deny_exports: {_subjects(STAYS_AT_ITS_END)}
    deny_imports: {_subjects(STAYS_AT_ITS_END)}
  }} ]
}}
system_account: SYS
accounts {{
  SYS {{ users: [ {{nkey: {server.system_nkey}}} ] }}
  SITE {{
    jetstream: enabled
    users: [
{_lines(users, 6)}
    ]
  }}
}}
"""


def _cluster(cluster: Cluster) -> str:
    return f"""\
cluster {{
  name: {HUB}
  listen: "{LOOPBACK}:{cluster.port}"
  no_advertise: true
  routes: {_subjects(cluster.routes)}
  tls {{
    {_tls(cluster.tls)}
    verify: true
  }}
}}
"""


def _site_on_hub(login: SiteLogin) -> str:
    site = login.site
    publish = [
        f"dlv.evt.{site}",
        "_R_.>",
        "$JSC.R.>",
        f"JSHUB.API.CONSUMER.MSG.NEXT.CMD.{site}",
        f"JSHUB.API.CONSUMER.INFO.CMD.{site}",
        f"$JS.ACK.CMD.{site}.>",
        f"calque.beat.{site}",
        f"calque.progress.{site}.>",
        f"calque.log.{site}.>",
        f"calque.ask.{site}.>",
    ]
    subscribe = [
        f"$JS.{site}.API.CONSUMER.RESET.EVT_{site}.hub",
        f"$JS.FC.EVT_{site}.>",
        f"{AGENT_INBOX}.>",
        "_INBOX.>",
        "_R_.>",
        f"calque.rpc.{site}.>",
        "calque.beat.hub",
    ]
    return f"""\
  {site_account(site)} {{
    users: [ {{
      nkey: {login.leaf_nkey}
      allowed_connection_types: ["LEAFNODE"]
      permissions: {{
        publish: {{allow: {_subjects(publish)}}}
        subscribe: {{allow: {_subjects(subscribe)}}}
      }}
    }} ]
    exports: [
{_lines(_site_exports(site), 6)}
    ]
    imports: [
{_lines(_site_imports(site), 6)}
    ]
  }}
"""


def _site_exports(site: str) -> list[str]:
    return [
        f'{{service: "$JS.{site}.API.CONSUMER.RESET.EVT_{site}.hub", accounts: [HUB]}}',
        f'{{stream: "dlv.evt.{site}", accounts: [HUB]}}',
        f'{{service: "$JS.FC.EVT_{site}.>", accounts: [HUB]}}',
        # Open to the accounts of principals too; what each imports is in its own entry.
        f'{{stream: "calque.beat.{site}"}}',
        f'{{stream: "calque.progress.{site}.>"}}',
        f'{{stream: "calque.log.{site}.>"}}',
        f'{{service: "calque.rpc.{site}.>", response_type: stream, accounts: [HUB]}}',
    ]


def _hub_imports(site: str) -> list[str]:
    account = site_account(site)
    return [
        f'{{service: {{account: {account}, subject: "$JS.{site}.API.CONSUMER.RESET.EVT_{site}.hub"}}}}',
        f'{{stream: {{account: {account}, subject: "dlv.evt.{site}"}}}}',
        f'{{service: {{account: {account}, subject: "$JS.FC.EVT_{site}.>"}}}}',
        f'{{stream: {{account: {account}, subject: "calque.beat.{site}"}}}}',
        f'{{stream: {{account: {account}, subject: "calque.progress.{site}.>"}}}}',
        f'{{stream: {{account: {account}, subject: "calque.log.{site}.>"}}}}',
        f'{{service: {{account: {account}, subject: "calque.rpc.{site}.>"}}}}',
    ]


def _hub_exports(sites: Sequence[str]) -> list[str]:
    exports = []
    for site in sites:
        to = f"accounts: [{site_account(site)}]"
        exports += [
            f'{{service: "$JS.API.CONSUMER.MSG.NEXT.CMD.{site}", response_type: stream, {to}}}',
            f'{{service: "$JS.API.CONSUMER.INFO.CMD.{site}", {to}}}',
            f'{{service: "$JS.ACK.CMD.{site}.>", {to}}}',
            f'{{service: "calque.ask.{site}.>", {to}}}',
        ]
    return exports


def _site_imports(site: str) -> list[str]:
    next_message, info = f"CONSUMER.MSG.NEXT.CMD.{site}", f"CONSUMER.INFO.CMD.{site}"
    return [
        f'{{service: {{account: HUB, subject: "$JS.API.{next_message}"}}, to: "JSHUB.API.{next_message}"}}',
        f'{{service: {{account: HUB, subject: "$JS.API.{info}"}}, to: "JSHUB.API.{info}"}}',
        f'{{service: {{account: HUB, subject: "$JS.ACK.CMD.{site}.>"}}}}',
        f'{{service: {{account: HUB, subject: "calque.ask.{site}.>"}}}}',
        '{stream: {account: HUB, subject: "calque.beat.hub"}}',
    ]


def _webhooks(nkey: str) -> str:
    """The process that sends events on: it reads the record, keeps its own streams, and may pause a webhook."""
    return _user(
        nkey,
        publish=(
            "calque.cmd.hub.webhooks.webhook.*.pause",
            "calque.webhook.>",
            "$JS.API.STREAM.INFO.EVENTS",
            "$JS.API.STREAM.MSG.GET.EVENTS",
            "$JS.API.CONSUMER.*.EVENTS",
            "$JS.API.CONSUMER.*.EVENTS.>",
            "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.*",
            "$JS.API.CONSUMER.MSG.NEXT.EVENTS.*",
            "$JS.ACK.EVENTS.>",
            "$JS.API.STREAM.*.WEBHOOK_LOG",
            "$JS.API.STREAM.*.WEBHOOK_DEAD",
            "$JS.API.STREAM.MSG.*.WEBHOOK_LOG",
            "$JS.API.STREAM.MSG.*.WEBHOOK_DEAD",
        ),
        subscribe=(
            *(query(what) for what in sorted(WEBHOOK_QUERIES)),
            *(acts(what) for what in sorted(WEBHOOK_ACTS)),
            "$SRV.>",
            f"{WEBHOOKS_INBOX}.>",
        ),
        answers=True,
        comment="webhooks",
    )


def _broker(site: str, name: str, nkey: str) -> str:
    kind, _, broker = name.partition("-")
    return _user(
        nkey,
        publish=(f"calque.progress.{site}.>", f"calque.log.{site}.>"),
        subscribe=(f"calque.req.{site}.{kind}.{broker}.>", "$SRV.>", "_INBOX.>"),
        answers=True,
        comment=f"broker {name}",
    )


def _user(nkey: str, *, publish: Iterable[str], subscribe: Iterable[str], comment: str, answers: bool = False) -> str:
    allow_responses = "\n  allow_responses: true" if answers else ""
    return f"""\
{{  # {comment}
  nkey: {nkey}
  permissions: {{
    publish: {{allow: {_subjects(publish)}}}
    subscribe: {{allow: {_subjects(subscribe)}}}{allow_responses.replace("  ", "    ")}
  }}
}}"""


def _tls(paths: TlsPaths, *, indent: int = 4) -> str:
    lines = (
        f"cert_file: {_text(paths.cert)}",
        f"key_file: {_text(paths.key)}",
        f"ca_file: {_text(paths.ca)}",
    )
    return f"\n{' ' * indent}".join(lines)


def _subjects(subjects: Iterable[str]) -> str:
    return "[" + ", ".join(_text(subject) for subject in subjects) + "]"


def _text(value: str | Path) -> str:
    return json.dumps(str(value))


def _lines(entries: Iterable[str], indent: int) -> str:
    return "\n".join(" " * indent + line for entry in entries for line in entry.splitlines())
