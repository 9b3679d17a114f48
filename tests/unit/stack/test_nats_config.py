"""The configurations as text: in step with the reference copies, and narrow where it matters."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hub.stack.errors import StackError
from hub.stack.nats_config import HubServer, SiteLogin, TlsPaths, hub_config
from hub.stack.reference import main, reference_files, stale_files

REFERENCE = Path(__file__).parents[3] / "deploy" / "nats"


def hub_with(*sites: str) -> str:
    return hub_config(
        HubServer(
            port=1,
            monitor_port=2,
            leaf_port=3,
            store_dir="/x",
            tls=TlsPaths(cert="c", key="k", ca="a"),
            system_nkey="US",
            service_nkey="UH",
            sites=[SiteLogin(site=site, leaf_nkey=f"U{number}") for number, site in enumerate(sites)],
        )
    )


def test_the_reference_copies_are_in_step() -> None:
    assert stale_files(REFERENCE) == [], "run: python -m hub.stack.reference deploy/nats"


def test_a_changed_copy_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
    (tmp_path / "hub.conf").write_text("changed")
    assert main(["--check", str(tmp_path)]) == 1
    assert "hub.conf is out of step" in capsys.readouterr().err
    assert main([]) == 2


@pytest.mark.parametrize("name", sorted(reference_files()))
def test_sources_and_flow_control_are_as_the_clients_need_them(name: str) -> None:
    assert "feature_flags { js_ack_fc_v2: false }" in reference_files()[name]


def test_a_sites_writes_are_synced() -> None:
    assert "sync_interval: always" in reference_files()["site.conf"]


def test_no_site_may_create_a_consumer() -> None:
    exports = "\n".join(line for line in hub_with("north", "south").splitlines() if "accounts: [SITE_" in line)
    assert "CONSUMER.MSG.NEXT.CMD.north" in exports
    assert "CREATE" not in exports


def test_what_is_exported_for_one_site_goes_to_its_account_only() -> None:
    text = hub_with("north", "south-2")
    for line in text.splitlines():
        match = re.search(r"accounts: \[(SITE_[A-Z0-9_]+)\]", line)
        if match:
            site = match[1].removeprefix("SITE_").lower().replace("_", "-")
            assert site in line.replace(match[0], "")


def test_the_hub_starts_without_any_site() -> None:
    assert "SITE_" not in hub_with()


def test_the_hubs_own_name_is_no_site() -> None:
    with pytest.raises(StackError, match="hub"):
        hub_with("hub")
