"""``down``, ``logs``, ``status``: the stack that runs on this machine."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from hub.cli.kinds import SITES
from hub.cli.lists import show_list
from hub.cli.loglines import Line, of_operation, read
from hub.cli.options import document_options, output_option, stack_options
from hub.cli.output import age, plain, printable, shown_line, size
from hub.cli.session import Session, asynchronous
from hub.cli.tables import show_fields, show_table
from hub.client import HubUnreachableError, NotFoundError
from hub.stack import running
from hub.stack.layout import HomeLayout
from hub.stack.logfiles import every_line, follow, last_lines, log_files
from hub.stack.running import RunningStack, look
from schemas.problems import CalqueError, not_found
from schemas.queries import StatusView


def part_names(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The parts that have a log."""
    try:
        names = log_files(HomeLayout(ctx.ensure_object(Session).home).logs)
    except (CalqueError, click.ClickException, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@stack_options
@asynchronous
async def down(session: Session) -> None:
    """Stop the stack of this machine, also what one left behind that was killed. State is kept."""
    home = session.home
    before = look(home)
    if before.keeper is not None:
        session.say(f"stopping the stack in {home} (process {before.keeper.pid})")
    stopped = await running.stop(home)
    for name in stopped.parts:
        click.echo(name)
    if stopped.keeper is None and not stopped.parts:
        session.say(f"nothing runs in {home}")
        return
    how = "killed, since it did not stop in time" if stopped.forced else "stopped"
    session.say(f"{len(stopped.parts)} parts {how}; state is kept")


@click.command()
@click.argument("part", required=False, shell_complete=part_names)
@click.option("-n", "--lines", default=100, show_default=True, type=click.IntRange(0), help="How many of the last.")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on with those that come.")
@click.option("--operation", metavar="ID", help="Only lines of this operation; without a part, of all parts in order.")
@stack_options
@output_option(("table", "json", "yaml", "name"))
@asynchronous
async def logs(session: Session, part: str | None, lines: int, following: bool, operation: str | None) -> None:
    """Show what a part of the stack wrote; without a part, list the parts. As JSON: one document per line.

    What an app service writes is shown by 'calque app logs'.
    """
    home = session.home
    files = log_files(HomeLayout(home).logs)
    if part is None and operation is not None:
        if following:
            raise click.UsageError("--follow needs a part: name one")
        for line in of_operation(files, operation):
            _tell_line(session, line, named=True)
        return
    if part is None:
        _list_parts(session, look(home))
        return
    if part not in files:
        listed = ", ".join(files) or f"none: nothing was started in {home} yet"
        raise NotFoundError(not_found("part", f"there is no log of a part {part!r}", f"there are: {listed}"))
    if following:
        async for text in follow(files[part], lines=lines):
            _tell_line(session, read(part, text), only=operation)
        return
    for text in last_lines(files[part], lines=lines) if operation is None else every_line(files[part]):
        _tell_line(session, read(part, text), only=operation)


def _tell_line(session: Session, line: Line, *, only: str | None = None, named: bool = False) -> None:
    if only is not None and not line.of(only):
        return
    if not shown_line(session.format, line.document(), name=line.part):
        text = f"{line.part}: {line.shown}" if named else line.shown
        click.echo("".join(each if each == "\t" else printable(each) for each in text))


def _list_parts(session: Session, stack: RunningStack) -> None:
    files = log_files(HomeLayout(stack.home).logs)
    names = [*stack.parts, *(name for name in files if name not in stack.parts)]
    sizes = {name: files[name].stat().st_size if name in files else 0 for name in names}
    documents = [
        {"part": name, "phase": stack.parts[name].phase if name in stack.parts else None, "log_bytes": sizes[name]}
        for name in names
    ]
    if session.shown(documents, *names):
        return
    show_table(
        ("part", "phase", "log"),
        [(name, stack.parts[name].phase if name in stack.parts else None, size(sizes[name])) for name in names],
        empty=f"nothing was started in {stack.home} yet; start it with 'calque up'",
    )


@click.command()
@document_options
@asynchronous
async def status(session: Session) -> None:
    """Show how it all is: sites, apps, images, operations; and the parts of the stack, if it runs on this machine."""
    home = session.choice.home
    stack = look(home) if home is not None and home.is_dir() else None
    local = stack if stack is not None and stack.parts else None
    try:
        async with session.client() as client:
            view = await client.status()
    except HubUnreachableError:
        if local is not None and local.keeper is not None and session.format == "table":
            _show_parts(local)
        raise
    if session.shown({**plain(view), "stack": local and local.as_json()}):
        return
    _show_status(session, view)
    if local is not None:
        click.echo("")
        _show_parts(local)


def _show_status(session: Session, status: StatusView) -> None:
    show_fields(
        {
            "version": status.version,
            "hub": status.hub,
            "apps": {state: count for state, count in status.apps.items() if count} or "0",
            "images": str(status.images),
            "operations": {state: count for state, count in status.operations.items() if count} or "0",
            "events": str(status.events),
            "unassigned": [printable(each) for each in status.unassigned],
        }
    )
    click.echo("")
    show_list(session, SITES, status.sites)


def _show_parts(stack: RunningStack) -> None:
    if stack.keeper is not None:
        since = f", for {age(stack.announced.since)}" if stack.announced else ""
        phase = stack.announced.phase if stack.announced else "starting"
        click.echo(f"stack in {stack.home}: {phase} (process {stack.keeper.pid}{since})")
    else:
        click.echo(f"stack in {stack.home}: stopped")
    show_table(
        ("part", "state", "pid", "restarts", "metrics", "cause"),
        [
            (name, part.phase, part.pid, part.restarts, stack.metrics.get(name), part.cause)
            for name, part in stack.parts.items()
        ],
        firm=frozenset({"part", "state"}),
    )
