"""``plan ...`` and ``--dry-run``: what a command would do, decided like the command itself and not done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import click

from hub.cli.completion import site_names
from hub.cli.exits import Exit, exit_code
from hub.cli.options import deadline_option
from hub.cli.planned_results import show_plan
from hub.cli.session import Session
from hub.client import Client, Started, planned
from hub.client.errors import client_error

F = TypeVar("F", bound=Callable[..., Any])

UNNAMED = "unnamed"
ANYWHERE = "anywhere"


class Planning(NamedTuple):
    """Whether a command is only planned, the digest of the plan that it has to be, and the seconds that it has."""

    dry: bool
    expected: str | None = None
    deadline: float | None = None

    def named(self, name: str | None) -> str:
        """The name of what is made; a plan needs none."""
        if name is None and not self.dry:
            raise click.UsageError("Missing option '--name'.")
        return name or UNNAMED

    def placed(self, site: str | None) -> str:
        """The site where it is made; a plan looks at all sites without one."""
        if site is None and not self.dry:
            raise click.UsageError("Missing option '--site'. Which sites can: the same command with --dry-run.")
        return site or ANYWHERE

    async def shown(
        self,
        session: Session,
        client: Client,
        verb: Callable[[Client], Awaitable[Started]],
        *,
        site: str | None = ANYWHERE,
    ) -> bool:
        """Show what ``verb`` would do; ``False`` when it is to be done. Without a ``site`` every site is asked.

        Ends the program as the command itself would end when no site can do it.
        """
        if not self.dry:
            return False
        view = await planned(client, verb, anywhere=site is None)
        show_plan(session, view)
        if not any(one.fits for one in view.candidates):
            lacks = [problem for one in view.candidates for problem in one.lacks]
            code = exit_code(client_error(lacks[0])) if len(view.candidates) == 1 and lacks else Exit.FAILED
            click.get_current_context().exit(code)
        return True


def _keep_dry_run(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    ctx.params["planning"] = _known(ctx)._replace(dry=value)


def _keep_expected(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    ctx.params["planning"] = _known(ctx)._replace(expected=value)


def _keep_deadline(ctx: click.Context, _: click.Parameter, value: float | None) -> None:
    ctx.params["planning"] = _known(ctx)._replace(deadline=value)


def _known(ctx: click.Context) -> Planning:
    known: Planning = ctx.params.get("planning", Planning(dry=False))
    return known


dry_run_option = click.option(
    "--dry-run", is_flag=True, expose_value=False, callback=_keep_dry_run, help="Show what would be done; do nothing."
)
expected_option = click.option(
    "--expect-plan",
    metavar="DIGEST",
    expose_value=False,
    callback=_keep_expected,
    help="Do it only if it is still what --dry-run showed under this digest.",
)
new_site_option = click.option(
    "--site", default=None, shell_complete=site_names, help="The site to run it at; --dry-run without it asks all."
)
name_option = click.option("--name", default=None, help="Name of the new app: a-z, 0-9 and '-', at most 40.")


def planning_options(function: F) -> F:
    """``--dry-run``, ``--expect-plan`` and ``--deadline``; the command gets them as ``planning``."""
    kept = deadline_option(expose_value=False, callback=_keep_deadline)
    return expected_option(dry_run_option(kept(function)))


def plan_of(command: click.Command, *, help: str) -> click.Command:
    """``plan <verb>``: the command with its options, only that it is a dry run."""
    left_out = {"dry_run", "expect_plan", "deadline", "wait", "timeout", "yes"}

    def rehearse(**values: Any) -> Any:
        assert command.callback is not None
        defaults = {"yes": True, "wait": False, "timeout": None}
        asked = {name: defaults[name] for name in defaults if any(each.name == name for each in command.params)}
        return command.callback(**{**values, **asked, "planning": Planning(dry=True)})

    return click.Command(
        command.name,
        callback=rehearse,
        params=[each for each in command.params if each.name not in left_out],
        help=help,
        short_help=command.short_help,
    )
