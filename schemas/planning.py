"""Plans: what a command would do, asked for before it is sent (``calque.qry.plan``, ``calque.rpc.<site>.plan``).

A plan is made by the same decision that the command meets when it is sent; only nothing is stored. Its ``digest``
covers all that it says. A command that carries it as ``expected_plan`` is rejected when the decision has become
another one.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from schemas.base import Fact
from schemas.operations import Step
from schemas.problems import Problem
from schemas.questions import Query, View
from schemas.registry import message
from schemas.values import DataServiceType, ServiceType, SiteState

_canonical = msgspec.json.Encoder(order="deterministic")


class PlannedService(Fact, frozen=True, kw_only=True):
    """An app service: ``does`` says what happens to it (``deploy``, ``stop``, ``remove``, ``quiesce`` or ``keep``);
    ``artifact`` is what it runs."""

    name: str
    type: ServiceType
    does: str
    platform: str = ""
    artifact: str = ""
    artifact_digest: str | None = None


class PlannedDataService(Fact, frozen=True, kw_only=True):
    """A data service: ``does`` says what happens to it (``provision``, ``restore``, ``deprovision``, ``copy``,
    ``keep``).

    ``monthly_cost`` is that of its plan in ``currency``, ``None`` when unknown. ``bytes`` is the size of the copy
    that it is restored from.
    """

    name: str
    type: DataServiceType
    does: str
    broker: str = ""
    plan: str = ""
    monthly_cost: float | None = None
    currency: str = ""
    limits: dict[str, str] = {}
    engine: str = ""
    copy: str | None = None
    bytes: int | None = None


class PlannedVariable(Fact, frozen=True, kw_only=True):
    """A variable of an app service that is to be another than the template (or the image) says; ``was`` is ``None``
    for one that is new."""

    service: str
    name: str
    value: str
    was: str | None = None


class SitePlan(Fact, frozen=True, kw_only=True):
    """What one command does at one site: everything that its decision fixed."""

    kind: str
    name: str
    site: str
    template: str = ""
    services: tuple[PlannedService, ...] = ()
    data_services: tuple[PlannedDataService, ...] = ()
    changes: tuple[PlannedVariable, ...] = ()
    steps: tuple[Step, ...] = ()


class Transfer(Fact, frozen=True, kw_only=True):
    """Copies that are fetched before an image can run; sizes in bytes."""

    source: str
    data_services: tuple[str, ...]
    bytes: int
    steps: tuple[Step, ...] = ()


class Candidate(Fact, frozen=True, kw_only=True):
    """A site, and whether it can do what is asked: ``lacks`` says what speaks against it, all of it.

    ``monthly_cost`` is the sum over the data services in ``currency``; ``None`` when one of them is unknown, or when
    they are in several currencies. ``digest`` is the plan's identity.
    """

    site: str
    state: SiteState
    fits: bool
    lacks: tuple[Problem, ...] = ()
    plan: SitePlan | None = None
    transfer: Transfer | None = None
    monthly_cost: float | None = None
    currency: str = ""
    digest: str = ""


@message("query.plan")
class PlanQuery(Query, frozen=True, kw_only=True):
    """What would this command do? ``data`` is that of the command ``<aggregate>.<verb>`` about ``target``.

    With ``anywhere`` its field ``site`` is disregarded, and every site is asked.
    """

    aggregate: str
    verb: str
    target: str
    data: dict[str, Any]
    anywhere: bool = False


@message("view.plan")
class PlanView(View, frozen=True, kw_only=True):
    """What the command would do, for each site that is meant; those that can do it come first."""

    verb: str
    name: str
    candidates: tuple[Candidate, ...]


@message("rpc.plan")
class SitePlanQuery(Query, frozen=True, kw_only=True):
    """What would the command of type ``type`` about ``target`` do here? Copies in ``arriving`` are taken to be here."""

    type: str
    target: str
    data: dict[str, Any]
    arriving: tuple[str, ...] = ()


@message("view.site_plan")
class SitePlanView(View, frozen=True, kw_only=True):
    """The plan, or all that speaks against it."""

    plan: SitePlan | None = None
    lacks: tuple[Problem, ...] = ()


def plan_digest(plan: SitePlan) -> str:
    """The identity of a plan: SHA-256 (hex) of its canonical JSON."""
    return hashlib.sha256(_canonical.encode(plan)).hexdigest()


def cost(plan: SitePlan) -> tuple[float | None, str]:
    """Price per month of the data services that the plan makes, and its currency; 0 when it makes none."""
    made = [one for one in plan.data_services if one.does in ("provision", "restore")]
    currencies = {one.currency for one in made if one.monthly_cost is not None}
    if len(currencies) > 1 or any(one.monthly_cost is None for one in made):
        return None, ""
    return sum(one.monthly_cost or 0.0 for one in made), currencies.pop() if currencies else ""
