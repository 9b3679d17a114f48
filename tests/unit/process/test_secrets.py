"""Secrets: masked for people, encrypted on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.process.vault import Vault
from brokers.sdk.masking import Mask
from schemas.problems import CalqueError
from schemas.secrets import Secret


def test_values_and_the_passwords_inside_urls_are_masked() -> None:
    mask = Mask([Secret(value="postgresql://me:p%40ssw0rd@db/x"), Secret(value="token-1"), Secret(value="abc")])
    assert mask("uri postgresql://me:p%40ssw0rd@db/x") == "uri ***"
    assert mask("p@ssw0rd p%40ssw0rd token-1") == "*** *** ***"
    assert mask("abc is too short to be hidden") == "abc is too short to be hidden"
    assert Mask([Secret(value="http://[broken")])("http://[broken") == "***"


def test_a_box_opens_with_its_key_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "key")
    box = vault.close({"A": Secret(value="s3cr3t-value")})
    assert b"s3cr3t-value" not in box
    assert Vault(tmp_path / "key").open(box) == {"A": Secret(value="s3cr3t-value")}
    assert vault.digest(b"x") == Vault(tmp_path / "key").digest(b"x") != Vault(tmp_path / "other").digest(b"x")
    with pytest.raises(CalqueError) as caught:
        Vault(tmp_path / "other").open(box)
    assert caught.value.problem.code == "secrets_lost"
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
