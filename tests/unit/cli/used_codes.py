"""The codes of problems that the code base can make, found in its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROOMS = ("schemas", "bus", "hub", "site_agent", "brokers")
MAKERS = {"permanent": 0, "temporary": 0, "permanent_error": 0, "temporary_error": 0, "Failure": 0, "Cause": 0}
MAKERS |= {"Unhandled": 5, "_put_aside": 1}
"""Calls that make a problem, and which argument is its code."""
NOT_OF_PRODUCT = ("brokers/testkit",)  # what its deliberately broken brokers say is no problem of a user
OPERATION_STATES = {"view.state": ("failed", "cancelled")}
CONSTANTS = {"ARCHIVED": ("archived",)}


def used_codes() -> dict[str, set[str]]:
    """Each code with the places that make it. Fails on an expression whose codes are not known."""
    found: dict[str, set[str]] = {}
    for file in _files():
        for place, code in _in_file(file):
            found.setdefault(code, set()).add(place)
    return found


def _files() -> Iterator[Path]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            if not file.relative_to(ROOT).as_posix().startswith(NOT_OF_PRODUCT):
                yield file


def _in_file(file: Path) -> Iterator[tuple[str, str]]:
    name = file.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            for expression in _code_of(node):
                place = f"{name}:{node.lineno}"
                for code in _values(expression, place):
                    yield place, code
        elif isinstance(node, ast.ClassDef):
            for statement in node.body:
                if (
                    isinstance(statement, ast.Assign)
                    and ast.unparse(statement.targets[0]) == "code"
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                ):
                    yield f"{name}:{statement.lineno}", str(statement.value.value)


def _code_of(call: ast.Call) -> Iterator[ast.expr]:
    maker = ast.unparse(call.func).rpartition(".")[2]
    if maker == "Problem" or maker in MAKERS:
        named = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
        if named:
            yield named[0]
        elif maker in MAKERS and len(call.args) > MAKERS[maker]:
            yield call.args[MAKERS[maker]]


def _values(expression: ast.expr, place: str) -> tuple[str, ...]:
    if isinstance(expression, ast.Constant) and isinstance(expression.value, str):
        return (expression.value,)
    if isinstance(expression, ast.IfExp):
        return (*_values(expression.body, place), *_values(expression.orelse, place))
    text = ast.unparse(expression)
    if text == "code" or text.endswith(".code"):
        return ()  # it was made elsewhere, and is passed on
    known = OPERATION_STATES | CONSTANTS
    assert text in known, f"{place}: which codes can {text} be? add it to {Path(__file__).name}"
    return known[text]
