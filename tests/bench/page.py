"""``docs/benchmarks.md``, made from the results of the last runs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tests.bench.harness import Curve, Figure
from tests.bench.machine import Machine


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The last run of one benchmark. ``seconds`` is how long it took; ``skipped`` says why it did not run."""

    title: str
    about: str
    measured: str
    machine: Machine
    seconds: float
    figures: list[Figure | Curve] = []
    skipped: str | None = None


HEAD = """# Benchmarks

Made by `make bench` from [benchmarks.json](benchmarks.json); don't edit. Absolute numbers belong to the machine that is
named with them. Ratios compare two things measured in turns in one run, and are what must hold. A bar is what was asked
for; ✗ marks one that was not reached in that run.
"""


def page(results: Mapping[str, Result]) -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(name, results[name]) for name in sorted(results))])


def _section(name: str, result: Result) -> str:
    lines = [f"## {result.title}", "", result.about, ""]
    machine = result.machine
    if result.skipped is not None:
        return "\n".join([*lines, f"Not measured: {result.skipped}", ""])
    figures = [each for each in result.figures if isinstance(each, Figure)]
    if figures:
        lines += ["| what | measured | bar | |", "| --- | --- | --- | --- |", *map(_row, figures), ""]
    for curve in result.figures:
        if isinstance(curve, Curve):
            lines += [*_drawn(curve), ""]
    lines += [
        f"`make bench CASES={name}`, {result.measured}, {result.seconds:.0f} s; {machine.processor}, {machine.cores} "
        f"cores, {machine.memory_gib:g} GiB, {machine.system}, {machine.python}, nats-server {machine.nats_server}; "
        f"load before: {machine.load_before:g}",
        "",
    ]
    return "\n".join(lines)


def _row(figure: Figure) -> str:
    bar = ""
    if figure.at_least is not None:
        bar = f"at least {number(figure.at_least)} {figure.unit}"
    elif figure.at_most is not None:
        bar = f"at most {number(figure.at_most)} {figure.unit}"
    name = f"{figure.name} ({figure.detail})" if figure.detail else figure.name
    mark = {True: "✓", False: "✗", None: ""}[figure.holds]
    return f"| {name} | {number(figure.value)} {figure.unit} | {bar.strip()} | {mark} |"


def number(value: float) -> str:
    """``value`` with three digits that count, thousands set apart."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _drawn(curve: Curve) -> list[str]:
    ys = [y for _, y in curve.points]
    labels = ", ".join(f'"{number(x)}"' for x, _ in curve.points)
    return [
        "```mermaid",
        "xychart-beta",
        f'  title "{curve.name}"',
        f'  x-axis "{curve.x}" [{labels}]',
        f'  y-axis "{curve.y}" 0 --> {max(ys) * 1.2:.3g}',
        f"  line [{', '.join(f'{y:.4g}' for y in ys)}]",
        "```",
        "",
        f"| {curve.x} | {curve.y} |",
        "| --- | --- |",
        *(f"| {number(x)} | {number(y)} |" for x, y in curve.points),
    ]
