"""The program ``calque``: its commands, and what happens when one of them fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from hub.cli.apps import app, deploy
from hub.cli.colour import UNCOLOURED
from hub.cli.completion import completion
from hub.cli.conform import conform_broker
from hub.cli.contexts import context
from hub.cli.dead_letters import dlq
from hub.cli.doctor import doctor
from hub.cli.events import events, subscription
from hub.cli.exits import MEANINGS, Exit, exit_code, show_error, show_unexpected
from hub.cli.hub import hub
from hub.cli.images import image, run, save
from hub.cli.masking import mask
from hub.cli.operations import operation
from hub.cli.options import context_option, home_option, no_color_option
from hub.cli.plans import plan
from hub.cli.principals import principal
from hub.cli.repositories import repository
from hub.cli.secrets import secret
from hub.cli.session import Session
from hub.cli.sites import broker, site
from hub.cli.stack import demo, up
from hub.cli.stack_parts import down, logs, status
from hub.cli.templates import template
from hub.cli.version import own_version, version
from hub.cli.webhooks import webhook
from hub.stack.errors import HomeInUse, StackError
from schemas.problems import CalqueError

_EXITS = "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"\b\nExit codes:\n{_EXITS}",
)
@click.version_option(own_version(), prog_name="calque", message="%(prog)s %(version)s")
@context_option
@home_option
@no_color_option
def cli() -> None:
    """Full copies of running applications: saved at one site, run at another, with their data."""


for command in (
    up, down, status, logs, doctor, demo, template, deploy, app, save, mask, image, run, plan, operation, events,
    subscription, site, broker, repository, secret, webhook, dlq, hub, context, principal, completion, version,
):  # fmt: skip
    cli.add_command(command)
broker.add_command(conform_broker)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the program; ends it with the exit code."""
    sys.exit(execute(sys.argv[1:] if arguments is None else arguments))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are told on stderr."""
    session = Session()
    UNCOLOURED.set(False)
    try:
        result = cli.main(args=list(arguments), prog_name="calque", standalone_mode=False, obj=session)
        sys.stdout.flush()
        # click returns what the command returned, or the code of ctx.exit().
        return result if isinstance(result, int) else Exit.OK
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        _tell_detached(session)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Whoever read us has enough; nothing more may be written, also not while Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except CalqueError as error:
        show_error(error)
        return exit_code(error)
    except StackError as error:
        click.echo(f"calque: {error}", err=True)
        return Exit.CONFLICT if isinstance(error, HomeInUse) else Exit.FAILED
    except Exception as error:
        show_unexpected(error, home=session.home_for_traces)
        return Exit.FAILED


def _tell_detached(session: Session) -> None:
    if session.detached is None:
        click.echo(f"\n{session.parting or 'interrupted'}", err=True)
        return
    click.echo(f"\nThe operation goes on without you. To come back: calque operation wait {session.detached}", err=True)


if __name__ == "__main__":
    main()
