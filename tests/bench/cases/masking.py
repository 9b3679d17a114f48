"""What masking costs while rows leave a database, on one core.

Rows of COPY's text format (some 110 bytes: a number, an e-mail address, a name, a date, a sentence, another number)
pass through the filter of a table with one masked column, one transformer at a time: with all values different, and
with each value coming a hundred times, since what became of a value is remembered. Beside it the same rows only cut
into lines and fields and put together again, which is the least that a filter in Python costs. In turns, medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

from brokers.masking.copytext import MaskedColumn, RowMask
from brokers.masking.keyed import Keyed
from brokers.masking.transformers import Workshop
from brokers.masking.types import read_type
from schemas.masking_rules import parse_transformer
from schemas.secrets import Secret
from tests.bench.harness import Curve, Figure, Scale, alternating

TITLE = "Masking rows of a table"
MB = 1_000_000
ROWS = {Scale.FULL: 200_000, Scale.SMOKE: 2_000}
RUNS = {Scale.FULL: 3, Scale.SMOKE: 1}
BLOCK = 1 << 20
REPEATED = 100
TRANSFORMERS = (
    ("redact", "text", 1),
    ("hash", "text", 1),
    ("fake name", "text", 1),
    ("fake email", "text", 1),
    ("keep format", "text", 1),
    ("hash", "bigint", 0),
    ("shift dates", "date", 3),
)


def rows(count: int, *, different: int) -> bytes:
    """``count`` rows, of which ``different`` are."""
    return b"".join(
        b"%d\tperson%d@corp.example\tAda Lovelace\t1985-%02d-%02d\tsome sentence that is not masked at all, %d\t%d\n"
        % (n, n, n % 12 + 1, n % 28 + 1, n, n * 7)
        for n in (number % different for number in range(count))
    )


def passed(content: bytes, words: str, type: str, place: int) -> float:
    """MB/s of one core."""
    workshop = Workshop(Keyed.of(Secret(value="a benchmark")), custom={})
    change = workshop.change(parse_transformer(words), read_type(type))
    return _speed(content, RowMask("people", [MaskedColumn("column", place, change)]).feed)


def cut(content: bytes) -> float:
    """The same for rows that are only cut and put together again."""
    return _speed(content, lambda block: b"\n".join([b"\t".join(line.split(b"\t")) for line in block.split(b"\n")]))


def _speed(content: bytes, feed: Callable[[bytes], bytes]) -> float:
    began = time.process_time()
    for place in range(0, len(content), BLOCK):
        feed(content[place : place + BLOCK])
    return len(content) / MB / max(time.process_time() - began, 1e-9)


async def run(scale: Scale) -> list[Figure | Curve]:
    """Each transformer over values that differ and values that repeat."""
    count, runs = ROWS[scale], RUNS[scale]
    fresh, repeated = rows(count, different=count), rows(count, different=max(count // REPEATED, 1))
    measures: list[Callable[[], float]] = [partial(cut, fresh)]
    for words, type, place in TRANSFORMERS:
        for content in (fresh, repeated):
            measures.append(partial(passed, content, words, type, place))
    medians = [statistics.median(each) for each in alternating(runs, *measures)]
    figures: list[Figure | Curve] = [
        Figure(name="rows only cut and put together", value=round(medians[0], 1), unit="MB/s per core")
    ]
    for number, (words, type, _) in enumerate(TRANSFORMERS):
        for name, value in zip(("all different", "each 100 times"), medians[1 + 2 * number :], strict=False):
            figures.append(Figure(name=f"{words} ({type}), {name}", value=round(value, 1), unit="MB/s per core"))
    return figures
