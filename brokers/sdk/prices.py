"""What the plans of a data service broker cost: the operator's word, on top of what the broker offers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from pydantic import Field

from brokers.sdk.settings import BrokerSettings, Section
from schemas.problems import CalqueError, invalid
from schemas.values import Plan


class Price(Section):
    """A plan's price."""

    monthly_cost: float = Field(ge=0)
    currency: str = Field(default="EUR", pattern="^[A-Z]{3}$")


class PricedSettings(BrokerSettings):
    """Settings of a broker whose plans may have prices: ``prices`` is plan -> price."""

    prices: dict[str, Price] = {}

    def priced(self, plans: Sequence[Plan]) -> tuple[Plan, ...]:
        """``plans`` with their prices; the cost of one without stays unknown.

        Raises :class:`CalqueError` for a price of a plan that the broker does not offer.
        """
        offered = {plan.name for plan in plans}
        if unknown := sorted(self.prices.keys() - offered):
            remedy = f"name one of: {', '.join(sorted(offered))}"
            raise CalqueError(invalid(f"prices.{unknown[0]}", f"there is no plan {unknown[0]!r}", remedy))
        return tuple(
            msgspec.structs.replace(plan, monthly_cost=price.monthly_cost, currency=price.currency)
            if (price := self.prices.get(plan.name))
            else plan
            for plan in plans
        )
