"""Which files of a cluster are copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.postgres.physical.files import control_is_whole, tree_of

# the CRC-32C of so many zeros
CHECKSUMS = {200: 0xCB6727D2, 288: 0x3FB4AB0E, 296: 0x51F5BC72}


def test_a_copy_has_what_a_base_backup_has_and_no_configuration(tmp_path: Path) -> None:
    kept = ("PG_VERSION", "base/5/1259", "base/5/1259.1", "base/5/1259_fsm", "base/5/20_init", "pg_xact/0000")
    left = (
        *("postmaster.pid", "backup_label", "postgresql.conf", "postgresql.auto.conf", "pg_hba.conf"),
        *("base/5/20", "base/5/20.1", "base/5/20_fsm", "base/5/t3_4711", "base/5/t3_4711_fsm.1"),
        *("base/5/pg_internal.init", "base/pgsql_tmp/pgsql_tmp1.2", "pg_wal/000000010000000000000001"),
        *("pg_replslot/ours/state", "pg_stat_tmp/x", "odd name", ".hidden"),
    )
    for path in (*kept, *left, "global/pg_control"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"12345678")
    (tmp_path / "pg_wal" / "archive_status").mkdir()
    found = tree_of(tmp_path)
    assert {path for path, _ in found.files} == set(kept)
    assert found.size == 8 * len(kept)
    directories = found.directories
    assert {"pg_wal", "pg_wal/archive_status", "base/5", "pg_replslot", "global"} <= set(directories)
    assert not {"pg_replslot/ours", "base/pgsql_tmp"} & set(directories)
    assert all(parent in directories[:at] for at, path in enumerate(directories) if (parent := path.rpartition("/")[0]))


@pytest.mark.parametrize("offset", CHECKSUMS)
def test_a_control_file_that_was_read_half_written_is_noticed(offset: int) -> None:
    content = bytearray(8192)
    content[offset : offset + 4] = CHECKSUMS[offset].to_bytes(4, "little")
    assert control_is_whole(bytes(content))
    content[17] ^= 1
    assert not control_is_whole(bytes(content))
