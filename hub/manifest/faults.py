"""Faults of a written file: where it is wrong, how, and what to do. All of a file's faults come together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from schemas.problems import CalqueError, Problem


class Fault(NamedTuple):
    """One problem and its place; ``line`` and ``column`` count from 1."""

    file: str
    line: int
    column: int
    problem: Problem

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.problem.sentence()}"


class ManifestError(CalqueError):
    """A file is not what it should be. ``problem`` is the first fault's, its message begins with the place."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: (fault.line, fault.column)))
        first = self.faults[0]
        super().__init__(first.problem)
        self.args = ("\n".join(str(fault) for fault in self.faults),)
