"""What plans cost is the operator's word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from brokers.sdk.prices import PricedSettings
from schemas.problems import CalqueError
from schemas.values import Plan
from tests.unit.brokers.test_settings import GOOD

PLANS = (Plan(name="small", limits={"connections": "50"}), Plan(name="ha"))


def settings(prices: dict[str, Any]) -> PricedSettings:
    return PricedSettings.model_validate({**GOOD, "state_dir": Path("state"), "prices": prices})


def test_a_plan_has_the_price_that_the_operator_gave_it_and_else_an_unknown_one() -> None:
    small, ha = settings({"small": {"monthly_cost": 12.5, "currency": "CHF"}}).priced(PLANS)
    assert (small.monthly_cost, small.currency, small.limits) == (12.5, "CHF", {"connections": "50"})
    assert ha.monthly_cost is None


def test_a_price_of_no_plan_is_told_with_the_plans_that_there_are() -> None:
    with pytest.raises(CalqueError, match=r"prices\.large.*ha, small"):
        settings({"large": {"monthly_cost": 1}}).priced(PLANS)


@pytest.mark.parametrize("price", [{"monthly_cost": -1}, {"monthly_cost": 1, "currency": "euro"}, {}])
def test_what_is_no_price_is_refused(price: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"prices\.small"):
        settings({"small": price})
