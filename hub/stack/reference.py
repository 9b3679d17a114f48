"""Reference copies of the NATS configurations, for whoever runs hub and sites on machines of their own.

`python -m hub.stack.reference deploy/nats` writes them, `--check` before the directory compares.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hub.stack.apps_nats import AppsServer, apps_config
from hub.stack.nats_config import Cluster, HubServer, SiteLogin, SiteServer, TlsPaths, hub_config, site_config
from hub.stack.principals import Principal

SITE = "north"


def reference_files() -> Mapping[str, str]:
    """The text of each file by its name: a hub with one site, three principals and eight brokers.

    ``hub-of-3.conf`` is the first server of a hub that has three.
    """
    hub = HubServer(
        port=4222,
        monitor_port=8222,
        leaf_port=7422,
        store_dir="/var/lib/calque/hub/nats",
        tls=_tls("hub"),
        system_nkey="U_SYS",
        service_nkey="U_HUB",
        webhooks_nkey="U_WEBHOOKS",
        principals=[
            Principal(name="admin", nkey="U_ADMIN"),
            Principal(name="ci", nkey="U_CI", role="publisher", verbs=("instance.save", "image.run")),
            Principal(name="billing", nkey="U_BILLING", role="subscriber"),
        ],
        sites=[SiteLogin(site=SITE, leaf_nkey="U_LEAF_NORTH")],
    )
    others = ("tls://hub-2.example:6222", "tls://hub-3.example:6222")
    return {
        "hub.conf": hub_config(hub),
        "hub-of-3.conf": hub_config(replace(hub, cluster=Cluster(port=6222, routes=others, tls=_tls("routes/hub")))),
        "site.conf": site_config(
            SiteServer(
                site=SITE,
                port=4222,
                monitor_port=8222,
                hub_leaf_urls=("tls://hub.example:7422",),
                store_dir="/var/lib/calque/north/nats",
                tls=_tls(SITE),
                system_nkey="U_SYS_NORTH",
                agent_nkey="U_AGENT",
                brokers={
                    "dsb-postgres": "U_DSB_POSTGRES",
                    "dsb-s3": "U_DSB_S3",
                    "dsb-volume": "U_DSB_VOLUME",
                    "dsb-nats": "U_DSB_NATS",
                    "psb-process": "U_PSB_PROCESS",
                    "psb-kubernetes": "U_PSB_KUBERNETES",
                    "crb-filesystem": "U_CRB_FILESYSTEM",
                    "crb-s3": "U_CRB_S3",
                    "crb-postgres": "U_CRB_POSTGRES",
                },
            )
        ),
        "apps.conf": apps_config(
            AppsServer(
                site=SITE,
                port=4223,
                monitor_port=8223,
                store_dir="/var/lib/calque/north/apps-nats",
                operator="OPERATOR_JWT",
                system_account="A_SYS",
                system_token="SYS_ACCOUNT_JWT",  # noqa: S106 - the place of a token, not one
            )
        ),
    }


def stale_files(directory: Path) -> list[str]:
    """Names of the files that are missing or differ from what would be written."""
    return [
        name
        for name, text in reference_files().items()
        if not (directory / name).is_file() or (directory / name).read_text() != text
    ]


def _tls(name: str) -> TlsPaths:
    place = f"/etc/calque/tls/{name}".rpartition("/")[0]
    return TlsPaths(cert=f"/etc/calque/tls/{name}.pem", key=f"/etc/calque/tls/{name}.key", ca=f"{place}/ca.pem")


def main(arguments: list[str]) -> int:
    """Write or compare; 0 when in step, 1 when not, 2 for wrong usage."""
    check = arguments[:1] == ["--check"]
    rest = arguments[check:]
    if len(rest) != 1:
        print("usage: python -m hub.stack.reference [--check] DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(rest[0])
    stale = stale_files(directory)
    if check:
        for name in stale:
            print(f"{directory / name} is out of step: python -m hub.stack.reference {directory}", file=sys.stderr)
        return 1 if stale else 0
    for name in stale:
        (directory / name).write_text(reference_files()[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
