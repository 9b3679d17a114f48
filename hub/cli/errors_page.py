"""``docs/errors.md``: exit codes, and every code that a problem may have."""

from __future__ import annotations

from hub.cli.exits import MEANINGS
from hub.cli.problem_codes import BROKER, CALLER, ENVIRONMENT, Code

_HEAD = """\
# Errors

Made from the program by `python -m hub.cli.pages` (`make generate`); `make check` holds it to that.

A problem says a stable `code`, the `message`, the `field` or part that it is about, a `remedy`, and the `actor`: who
can do something about it. The same problem is the answer to a command, the reply to a query or a request
(`calque.problem.v1`), the reason in an event, and what the command line says:

```
calque: plans.ideas: broker postgres at north has no plan 'huge'; use one of: small
        (command 0199f3c2-...)
```

An operation that failed also says whether what it had made is gone: `cleanup` is `none`, `done`, `pending` (it is being
removed) or `stuck` (removing fails; it is repeated for ever). `calque operation describe ID` shows its steps.

## Exit codes

| exit code | meaning |
| --- | --- |
"""
_SECTIONS = (
    ("The caller must act", "Actor `caller`. The same request fails again.", CALLER),
    (
        "It passes, or the surroundings must change",
        "Actor `environment`; `retry_after_seconds` says when.",
        ENVIRONMENT,
    ),
    ("A part, or the technology behind it, refuses for good", "Actor `broker`.", BROKER),
)


def errors_page() -> str:
    """The whole page."""
    exits = "".join(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    return _HEAD + exits + "".join(_section(*each) for each in _SECTIONS)


def _section(title: str, text: str, codes: dict[str, Code]) -> str:
    rows = "".join(f"| `{name}` | {code.meaning} | {code.remedy} |\n" for name, code in sorted(codes.items()))
    return f"\n## {title}\n\n{text}\n\n| code | meaning | what to do |\n| --- | --- | --- |\n{rows}"
