"""The program ``calque``: its commands, and what happens when one of them fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from hub.cli.apps import app, deploy
from hub.cli.exits import MEANINGS, Exit, exit_code, show_error, show_unexpected
from hub.cli.images import image, run, save
from hub.cli.operations import events, operation
from hub.cli.session import Session
from hub.cli.sites import broker, site, status
from hub.cli.stack import demo, up
from hub.cli.templates import template
from hub.cli.version import version
from hub.stack.errors import HomeInUse, StackError
from schemas.problems import CalqueError

_EXITS = "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"\b\nExit codes:\n{_EXITS}",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False),
    default=None,
    help="Directory of the stack; else CALQUE_HOME, else $XDG_DATA_HOME/calque.",
)
@click.pass_context
def cli(ctx: click.Context, home: str | None) -> None:
    """Full copies of running applications: saved at one site, run at another, with their data."""
    ctx.ensure_object(Session).chosen_home = home


for command in (
    up, status, demo, template, deploy, app, save, image, run, operation, events, site, broker, version,
):  # fmt: skip
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """The entry point of the program; ends it with the exit code."""
    sys.exit(execute(sys.argv[1:] if arguments is None else arguments))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are told on stderr."""
    session = Session()
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
        show_unexpected(error, home=session.home)
        return Exit.FAILED


def _tell_detached(session: Session) -> None:
    if session.detached is None:
        click.echo("\ninterrupted", err=True)
        return
    click.echo(f"\nThe operation goes on without you. To come back: calque operation wait {session.detached}", err=True)


if __name__ == "__main__":
    main()
