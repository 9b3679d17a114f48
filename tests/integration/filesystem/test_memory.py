"""A broker's and a repository's memory doesn't grow with what passes through them."""

from pathlib import Path

import pytest

from tests.bench.stream_ends import Ends

LIMIT_MIB = 512.0
BIG_MIB = 8192
SMALL_MIB = 300
GROWN_MIB = 230.0


@pytest.mark.full
async def test_eight_gibibytes_pass_through_half_a_gibibyte_of_memory(tmp_path: Path) -> None:
    """All of it new chunks, made on the way; in, and back."""
    async with Ends.open(tmp_path) as ends:
        await ends.run("write_alike", copy="big", amount=BIG_MIB)
        await ends.run("read_stream", copy="big", amount=BIG_MIB)
        repository, broker = await ends.peaks_mib()
    assert repository < LIMIT_MIB
    assert broker < LIMIT_MIB


@pytest.mark.full
async def test_what_cannot_be_compressed_takes_no_more(tmp_path: Path) -> None:
    async with Ends.open(tmp_path) as ends:
        await ends.run("write_fresh", copy="warm", amount=40)
        first, _ = await ends.peaks_mib()
        await ends.run("write_fresh", copy="big", amount=SMALL_MIB)
        await ends.run("read_stream", copy="big", amount=SMALL_MIB)
        repository, broker = await ends.peaks_mib()
    assert repository < first + GROWN_MIB
    assert max(repository, broker) < LIMIT_MIB
