"""The guide says what there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.testkit.__main__ import parser
from brokers.testkit.checks import CHECKS, EVERY_KIND
from brokers.testkit.run import checks_of
from schemas.brokers import CONTRACTS
from schemas.values import BrokerKind

ROOT = Path(__file__).parents[3]
GUIDE = (ROOT / "docs" / "writing-a-broker.md").read_text()


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_operation_stands_in_the_table_and_long_ones_have_a_star(kind: BrokerKind) -> None:
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{kind}` |"))
    for operation, contract in CONTRACTS[kind].items():
        assert f"`{operation}`{'*' if contract.long else ''} " in row, operation


def test_every_option_of_the_kit_stands_in_the_guide() -> None:
    named = {option for action in parser()._actions for option in action.option_strings if option.startswith("--")}
    connecting = {"--help", "--nkey", "--inbox-prefix", "--config", "--patience", "--output"}
    assert {option for option in named - connecting if option not in GUIDE} == set()


def test_there_are_enough_checks_and_each_says_where_the_contract_is() -> None:
    assert len(CHECKS) >= 60
    assert all(len(checks_of(kind)) >= 60 for kind in EVERY_KIND)
    for check in CHECKS.values():
        assert check.sentence.endswith("."), check.id
        assert check.spec, check.id
        assert check.act.__module__.startswith("brokers.testkit.checks_")


def test_code_in_the_guide_is_code_of_the_example() -> None:
    example = " ".join((ROOT / "examples" / "broker" / "folders.py").read_text().split())
    for line in ("class FolderBroker(Broker):", "run_broker(FolderBroker, FolderSettings)", "if not mark.exists():"):
        assert line in GUIDE
        assert line in example
