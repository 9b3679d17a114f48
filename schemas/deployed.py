"""What an instance runs, from the event that began it. Pure: sites and hub read the same event the same way."""

from __future__ import annotations

from schemas.configuration import Configured, configured, effective, without_parts
from schemas.events import InstanceDeploying
from schemas.values import Choices, Template


def deployed(event: InstanceDeploying) -> Template:
    """What runs: see :func:`schemas.configuration.effective`."""
    return effective(event.template, _choices(event), absent=event.without, picked=event.picked)


def variables(event: InstanceDeploying) -> dict[str, dict[str, Configured]]:
    """App service -> variable -> its value and where that comes from."""
    reduced = without_parts(event.template, (*event.without, *(event.template.services if event.adopted else ())))
    return {name: configured(reduced, name, _choices(event)) for name in reduced.services}


def _choices(event: InstanceDeploying) -> Choices:
    return Choices(
        environment=event.environment,
        environment_name=event.environment_name,
        artifacts=event.artifacts,
        attach=event.attached,
        adopted=event.adopted,
    )
