"""In which order the app services of a template start: those that are needed come first."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.references import MalformedReference, references
from schemas.values import ServiceSpec


class CycleError(ValueError):
    """Services need each other in a circle; ``cycle`` begins and ends with the same name."""

    def __init__(self, cycle: tuple[str, ...]) -> None:
        super().__init__(" -> ".join(cycle))
        self.cycle = cycle


def needs(services: Mapping[str, ServiceSpec]) -> dict[str, tuple[str, ...]]:
    """Which other app services each one needs: its ``depends_on`` and ``wants``, and those that its environment
    refers to.

    Names that are no app service are left out.
    """
    found: dict[str, tuple[str, ...]] = {}
    for name, spec in services.items():
        wanted = {*spec.depends_on, *spec.wants}
        for value in spec.environment.values():
            if not isinstance(value, str):
                continue
            try:
                wanted.update(each.service for each in references(value))
            except MalformedReference:
                continue  # it refers to nothing; the check of the template says what is wrong with it
        found[name] = tuple(sorted(wanted & services.keys()))
    return found


def order(services: Mapping[str, ServiceSpec]) -> tuple[str, ...]:
    """All names, each after those it needs, else by name; raises :class:`CycleError`."""
    wanted = needs(services)
    done: dict[str, None] = {}
    for start in sorted(services):
        _visit(start, wanted, done)
    return tuple(done)


def _visit(start: str, wanted: Mapping[str, tuple[str, ...]], done: dict[str, None]) -> None:
    """Depth first without recursion: a template may hold more services than Python has stack frames."""
    path: dict[str, None] = {}
    stack: list[tuple[str, bool]] = [(start, False)]
    while stack:
        name, left = stack.pop()
        if left:
            del path[name]
            done[name] = None
            continue
        if name in done:
            continue
        if name in path:
            trail = tuple(path)
            raise CycleError((*trail[trail.index(name) :], name))
        path[name] = None
        stack.append((name, True))
        stack.extend((each, False) for each in reversed(wanted[name]))
