"""``plan``: the verbs that can be rehearsed."""

from __future__ import annotations

import click

from hub.cli import apps, images
from hub.cli.planning import plan_of


@click.group()
def plan() -> None:
    """Plans: what a verb would do, at which sites, at what cost. Nothing is done.

    The same as the verb with --dry-run. What is shown is what is then done: give the plan's digest to the verb as
    --expect-plan, and it is refused when anything has changed.
    """


for command, help in (
    (apps.deploy, "What deploying a template would do; without --site, at which sites it can be done."),
    (images.run, "What running an image would do; without --site, at which sites it can be done."),
    (images.save, "What saving an app would do."),
    (apps.stop, "What stopping an app would do."),
    (apps.start, "What starting an app would do."),
    (apps.delete, "What deleting an app would remove."),
):
    plan.add_command(plan_of(command, help=help))
