"""Ports of a home: the same at every start, until somebody else has taken one."""

from __future__ import annotations

import socket
from pathlib import Path

from hub.stack.ports import HIGHEST, LOOPBACK, LOWEST, Ports, is_free


def test_a_port_is_remembered(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json").pick("postgres")
    assert LOWEST <= first <= HIGHEST
    assert Ports(tmp_path / "ports.json").pick("postgres") == first


def test_a_port_that_another_has_taken_is_picked_anew(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json").pick("postgres")
    with socket.create_server((LOOPBACK, first)):
        second = Ports(tmp_path / "ports.json").pick("postgres")
    assert second != first
    assert Ports(tmp_path / "ports.json").pick("postgres") == second


def test_a_derived_port_that_is_taken_counts_too(tmp_path: Path) -> None:
    first = Ports(tmp_path / "ports.json").pick("s3", offsets=(0, 10_000))
    assert first + 10_000 <= HIGHEST
    with socket.create_server((LOOPBACK, first + 10_000)):
        assert Ports(tmp_path / "ports.json").pick("s3", offsets=(0, 10_000)) != first


def test_no_two_parts_get_one_port(tmp_path: Path) -> None:
    ports = Ports(tmp_path / "ports.json")
    pairs = [ports.pick(f"pair-{number}", offsets=(0, 10_000)) for number in range(20)]
    singles = [ports.pick(f"single-{number}") for number in range(50)]
    every = [*pairs, *(port + 10_000 for port in pairs), *singles]
    assert len(set(every)) == len(every)
    assert all(is_free(port) for port in every)
