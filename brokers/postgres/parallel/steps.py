"""What a restore does with each of the bigger tables, and in which order: its rows, then its indexes and constraints as
soon as the rows of the tables that they need are there. Values only; :mod:`.restoring` does it.

Entries of the dump that are not understood here are left to one ``pg_restore`` at the end, which knows them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from brokers.postgres.contents import Entry
from brokers.postgres.parallel.tables import PartPlan

INDEX_COST = 0.6
"""Of making an index or checking a constraint, against loading the rows; only the order hangs on it."""
_KINDS = frozenset({"INDEX", "CONSTRAINT", "FK CONSTRAINT"})


class Step:
    """Rows to load (``job``) or an entry to restore. ``tables`` are those that it locks; other steps may have them at
    the same time only if both are ``shared``."""

    def __init__(
        self,
        *,
        tables: frozenset[int],
        cost: float,
        job: Sequence[PartPlan] = (),
        entry: Entry | None = None,
        needs: Iterable[Step] = (),
    ) -> None:
        self.tables = tables
        self.job = job
        self.entry = entry
        self.needs = tuple(needs)
        self.cost = cost
        self.rank = cost
        """What hangs on it, itself included: what has the most goes first."""
        self.shared = entry is not None and entry.kind == "INDEX" and "ALTER TABLE" not in entry.statement

    def may_run_beside(self, other: Step) -> bool:
        """Whether neither waits for a lock of the other."""
        return (self.shared and other.shared) or not self.tables & other.tables


class Steps:
    """All steps of a restore, handed out one by one. ``left`` are the entries after the data that are no step."""

    def __init__(self, jobs: Sequence[Sequence[PartPlan]], contents: Sequence[Entry], *, big_bytes: int) -> None:
        numbers = {(entry.schema, entry.name): entry.number for entry in contents if entry.kind == "TABLE"}
        loads: dict[int, Step] = {}
        self._waiting: list[Step] = []
        for job in jobs:
            tables = {piece.table for part in job for piece in part.pieces}
            locked = frozenset(numbers.get((table.schema, table.name), 0) for table in tables) - {0}
            step = Step(tables=locked, cost=float(sum(table.bytes for table in tables)), job=job)
            self._waiting.append(step)
            loads.update(dict.fromkeys(locked, step))
        big = {
            numbers.get((piece.table.schema, piece.table.name), 0): piece.table.bytes
            for job in jobs
            for part in job
            for piece in part.pieces
            if piece.table.bytes >= big_bytes
        }
        self.left = self._add_entries(contents, loads, big)
        self._running: list[Step] = []
        self._done: set[Step] = set()
        for step in reversed(self._waiting):
            for need in step.needs:
                need.rank = max(need.rank, need.cost + step.rank)
        self._waiting.sort(key=lambda step: -step.rank)

    def _add_entries(
        self, contents: Sequence[Entry], loads: Mapping[int, Step], big: Mapping[int, int]
    ) -> tuple[Entry, ...]:
        known = {entry.number: entry for entry in contents}
        after = [entry for entry in contents if entry.section == "post-data"]
        made: dict[int, Step] = {}
        changed = True
        while changed:
            # An archive lists a foreign key after the constraint it needs, but that is no promise.
            changed = False
            for entry in after:
                if entry.number in made or entry.kind not in _KINDS:
                    continue
                tables = {need for need in entry.needs if need in known and known[need].kind == "TABLE"}
                needs = [made[need] for need in entry.needs if need in made]
                later = {n for n in entry.needs if n in known and known[n].section in ("post-data", "data")}
                tables |= {table for need in needs for table in need.tables}
                if later - set(made) or not tables <= loads.keys() or not any(table in big for table in tables):
                    continue
                step = Step(
                    tables=frozenset(tables),
                    cost=INDEX_COST * max(big.get(table, 0) for table in tables),
                    entry=entry,
                    needs=[*{id(loads[table]): loads[table] for table in tables}.values(), *needs],
                )
                made[entry.number] = step
                self._waiting.append(step)
                changed = True
        return tuple(entry for entry in after if entry.number not in made)

    @property
    def done(self) -> bool:
        """Whether nothing is to be done any more but what runs."""
        return not self._waiting

    @property
    def running(self) -> int:
        """How many run now."""
        return len(self._running)

    def next(self) -> Step | None:
        """What may run now, if anything."""
        for step in self._waiting:
            if self._done.issuperset(step.needs) and all(step.may_run_beside(other) for other in self._running):
                self._waiting.remove(step)
                self._running.append(step)
                return step
        return None

    def ended(self, step: Step) -> None:
        """It was done."""
        self._running.remove(step)
        self._done.add(step)
