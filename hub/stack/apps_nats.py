"""The NATS server for apps of a site, beside the one that the site's own parts speak over.

In operator mode: its accounts are tokens that the messaging broker signs and the server keeps, so apps come and go
without a change of this configuration, and nothing of the site's own traffic can be reached through it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bus.tokens import account_token, operator_token
from hub.stack.files import private_directory
from hub.stack.keys import AppsKeys
from hub.stack.layout import HomeLayout
from hub.stack.parts import Part
from hub.stack.ports import LOOPBACK
from hub.stack.servers.nats import nats_part

ISSUED_AT = 1_700_000_000
"""The same at every start, so that the server finds the tokens that it has."""


@dataclass(frozen=True, kw_only=True)
class AppsServer:
    """Settings of the server. Ports are on the loopback address; the two tokens are texts."""

    site: str
    port: int
    monitor_port: int
    store_dir: str
    operator: str
    system_account: str
    system_token: str


def apps_config(server: AppsServer) -> str:
    """The configuration of the NATS server for the apps of a site."""
    return f"""\
# The server for apps of site {server.site}. Written by hub/stack/apps_nats.py: change that, not this.
server_name: {server.site}-apps
listen: "{LOOPBACK}:{server.port}"
http: "{LOOPBACK}:{server.monitor_port}"
ping_interval: "20s"
ping_max: 2
write_deadline: "10s"
max_payload: 1MB
feature_flags {{ js_ack_fc_v2: false }}
operator: {server.operator}
system_account: {server.system_account}
resolver {{
  type: full
  dir: {json.dumps(server.store_dir + "/accounts")}
  allow_delete: true
  interval: "2m"
}}
resolver_preload {{
  {server.system_account}: {server.system_token}
}}
"""


def apps_nats_part(
    layout: HomeLayout, keys: AppsKeys, *, site: str, port: int, monitor_port: int, program: Path | None = None
) -> Part:
    """The server as a part. It depends on nothing."""
    operator = keys.operator
    system = keys.system_account.public
    store = layout.site(site) / "apps-nats"
    private_directory(layout.config)
    return nats_part(
        f"{site}-apps-nats",
        config_file=layout.nats_config(f"{site}-apps"),
        config=apps_config(
            AppsServer(
                site=site,
                port=port,
                monitor_port=monitor_port,
                store_dir=str(store),
                operator=operator_token(operator, name=f"{site}-apps", system_account=system, issued_at=ISSUED_AT),
                system_account=system,
                system_token=account_token(operator, account=system, name="SYS", claims={}, issued_at=ISSUED_AT),
            )
        ),
        monitor_port=monitor_port,
        store_dir=store,
        program=program,
    )
