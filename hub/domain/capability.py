"""Can a site serve a template? An early answer from what its brokers offer; the site itself decides again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from schemas.problems import Problem, not_found
from schemas.queries import BrokerView
from schemas.values import Template


def check_site_serves(
    template: Template, *, site: str, plans: Mapping[str, str], brokers: Sequence[BrokerView]
) -> Problem | None:
    """``None`` when every data service finds a broker with its plan, or nothing is known of the site's brokers."""
    offered = [broker for broker in brokers if broker.kind == "dsb" and broker.state == "registered"]
    if not offered:
        return None
    for name, spec in template.data_services.items():
        fitting = [broker for broker in offered if spec.type in broker.types and spec.broker in (None, broker.name)]
        if not fitting:
            wanted = f"{spec.type} from broker {spec.broker}" if spec.broker else spec.type
            there = ", ".join(sorted(f"{kind} ({broker.name})" for broker in offered for kind in broker.types))
            return not_found(
                f"data_services.{name}", f"site {site} has no {wanted} for {name!r}", f"{site} has: {there or 'none'}"
            )
        plan = plans.get(name, spec.plan)
        known = sorted({each.name for broker in fitting for each in broker.plans})
        if plan is not None and known and plan not in known:
            return not_found(
                f"plans.{name}", f"site {site} has no plan {plan!r} for {name!r}", f"use one of: {', '.join(known)}"
            )
    return None
