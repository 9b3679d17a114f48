"""``docs/cli.md``, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from hub.cli.exits import MEANINGS
from hub.cli.main import cli

_HEAD = """\
# The command line

Made from the program by `python -m hub.cli.pages` (`make generate`); `make check` holds it to that.

Results go to stdout, talk and progress to stderr. Verbs wait until their operation has ended; Ctrl-C leaves it
running and says how to come back. Progress is drawn in place on a terminal and told in plain lines elsewhere.
Durations are written `90`, `90s`, `2m` or `1h30m`.

| `-o` | on stdout |
| --- | --- |
| `table` | for people; cut to the width of a terminal, whole elsewhere |
| `wide` | the same with more columns, never cut |
| `json` | one document with every field; an empty list is `[]` |
| `yaml` | the same as YAML |
| `name` | a name per line, as commands take it: the id where several things bear that name |

What goes on prints one document per line as `json` (NDJSON): `events`, `app logs -f`, `logs PART`, and lists with
`--watch`, whose lines are `{"change": "added" | "changed" | "removed", "object": {...}}`. On a terminal `--watch`
redraws the table in place. Colours only go to a terminal, and not with `--no-color`, `NO_COLOR` or `TERM=dumb`.

The hub that is meant: `--context`, else `--home`, else `CALQUE_CONTEXT`, else `CALQUE_HOME`, else the current context
(`calque context use`), else the home `$XDG_DATA_HOME/calque` or `~/.local/share/calque`. `calque context show` says
which it is and why. Named contexts lie in `$XDG_CONFIG_HOME/calque/contexts.json` or `~/.config/calque/contexts.json`.

A name means the app that holds it now. One that failed and was cleaned up, or was deleted, is found by its id.

| variable | meaning |
| --- | --- |
| `CALQUE_HOME` | directory of the stack, unless `--home` names one |
| `CALQUE_CONTEXT` | the named context, unless `--context` names one |
| `NO_COLOR` | no colours, if it is set to anything |
| `XDG_DATA_HOME`, `XDG_CONFIG_HOME` | where the default home and the named contexts lie |

| exit code | meaning |
| --- | --- |
"""


def reference() -> str:
    """The whole page."""
    codes = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return _HEAD + codes + "".join(_sections(cli, "calque"))


def _sections(group: click.Group, path: str, parent: click.Context | None = None) -> Iterator[str]:
    # Settings such as the names of the help option come down from the parent.
    context = click.Context(group, info_name=path, parent=parent, **group.context_settings)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            continue
        yield _section(command, f"{path} {name}", context)
        if isinstance(command, click.Group):
            yield from _sections(command, f"{path} {name}", context)


def _section(command: click.Command, path: str, parent: click.Context) -> str:
    context = click.Context(command, info_name=path, parent=parent)
    lines = [f"\n## {path}\n"]
    if command.help:
        lines.append("\n" + "\n".join(line.strip() for line in command.help.strip().splitlines()) + "\n")
    if isinstance(command, click.Group):
        return "".join(lines)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines.append(f"\n```\n{path} {pieces}\n```\n")
    rows = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    if rows:
        lines.append("\n| option | meaning |\n| --- | --- |\n")
        lines += [f"| `{_cell(option)}` | {_cell(text)} |\n" for option, text in rows]
    if command.epilog:
        shown = command.epilog.replace("\b", "").strip("\n")
        lines.append(f"\n```\n{shown}\n```\n")
    return "".join(lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
