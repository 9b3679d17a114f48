"""Following and rotating the log of a process that keeps its file open."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.process.logfiles import LONGEST_LINE_BYTES, LogFollower, last_lines, open_log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


@pytest.fixture
def writer(log: Path) -> Iterator[int]:
    descriptor = open_log(log)
    yield descriptor
    os.close(descriptor)


def test_lines_come_when_they_are_whole(log: Path, writer: int) -> None:
    os.write(writer, b"before\n")
    follower = LogFollower(log)
    assert not follower.has_more()
    os.write(writer, b"one\r\ntw")
    assert follower.has_more()
    assert follower.new_lines() == ["one"]
    os.write(writer, b"o\n\xff\n")
    assert follower.new_lines() == ["two", "\ufffd"]
    assert follower.new_lines() == []


def test_a_line_without_end_is_cut(log: Path, writer: int) -> None:
    follower = LogFollower(log)
    os.write(writer, b"x" * (LONGEST_LINE_BYTES + 1))
    assert [len(line) for line in follower.new_lines()] == [LONGEST_LINE_BYTES]


def test_rotation_keeps_every_line_and_the_writer_goes_on(log: Path, writer: int) -> None:
    follower = LogFollower(log, rotate_bytes=1000)
    seen: list[str] = []
    wrote = [f"line {number:04}" for number in range(250)]
    for line in wrote:
        os.write(writer, f"{line}\n".encode())
        seen += follower.new_lines()
    assert seen == wrote
    assert sorted(path.name for path in log.parent.iterdir()) == ["web.log", "web.log.1", "web.log.2"]
    assert log.stat().st_size < 1000
    kept = last_lines(log, 1000)
    assert kept == wrote[-len(kept) :]
    assert len(kept) >= 200
    assert last_lines(log, 60) == wrote[-60:]


def test_last_lines(log: Path, writer: int) -> None:
    assert last_lines(log.with_name("none.log"), 5) == []
    os.write(writer, b"a\nb\nc")
    assert last_lines(log, 2) == ["b", "c"]
    assert last_lines(log, 0) == []
    assert last_lines(log, 9) == ["a", "b", "c"]


def test_a_log_that_somebody_emptied_is_followed_on(log: Path, writer: int) -> None:
    follower = LogFollower(log)
    os.write(writer, b"a long line\n")
    assert follower.new_lines() == ["a long line"]
    os.truncate(log, 0)
    os.write(writer, b"b\n")
    assert follower.new_lines() == ["b"]
