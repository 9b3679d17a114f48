"""The keys of a home: made once, kept when a site is added, closed to others."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from nacl.public import PrivateKey, SealedBox

from hub.stack.errors import StackError
from hub.stack.keys import open_keys, read_seed

BROKERS = ("dsb-postgres", "crb-filesystem")


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def test_adding_a_site_and_a_broker_keeps_every_key(tmp_path: Path) -> None:
    open_keys(tmp_path, sites=("north",), brokers=BROKERS)
    before = contents(tmp_path)
    keys = open_keys(tmp_path, sites=("north", "south"), brokers=(*BROKERS, "dsb-s3"))
    after = contents(tmp_path)
    assert {name: after[name] for name in before} == before
    assert keys.sites["south"].leaf.public != keys.sites["north"].leaf.public
    assert set(keys.sites["north"].brokers) == {*BROKERS, "dsb-s3"}


def test_an_interrupted_first_start_is_completed(tmp_path: Path) -> None:
    keys = open_keys(tmp_path, sites=("north",), brokers=BROKERS)
    kept = keys.sites["north"].agent.public
    for lost in (
        keys.sites["north"].crb_tls["crb-filesystem"].cert,
        keys.sites["north"].seal_public_file,
        keys.hub.system.seed_file,
    ):
        lost.unlink()
    again = open_keys(tmp_path, sites=("north",), brokers=BROKERS)
    assert again.sites["north"].agent.public == kept
    assert again.sites["north"].crb_tls["crb-filesystem"].cert.exists()
    assert again.sites["north"].seal_public_file.exists()


def test_keys_are_closed_to_other_users(tmp_path: Path) -> None:
    open_keys(tmp_path / "keys", sites=("north",), brokers=BROKERS)
    for entry in [tmp_path / "keys", *(tmp_path / "keys").rglob("*")]:
        assert stat.S_IMODE(entry.stat().st_mode) == (0o700 if entry.is_dir() else 0o600), entry


def test_certificates_serve_the_ends_they_are_for(tmp_path: Path) -> None:
    keys = open_keys(tmp_path, sites=("north",), brokers=BROKERS)
    authority = x509.load_pem_x509_certificate(keys.ca.read_bytes())
    expected = {
        keys.hub.leaf_tls.cert: ({ExtendedKeyUsageOID.SERVER_AUTH}, {"localhost", "hub"}),
        keys.sites["north"].leaf_tls.cert: ({ExtendedKeyUsageOID.CLIENT_AUTH}, {"north"}),
        keys.sites["north"].crb_tls["crb-filesystem"].cert: (
            {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH},
            {"localhost", "crb.north"},
        ),
    }
    for file, (usages, names) in expected.items():
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
        certificate.verify_directly_issued_by(authority)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(usage) == usages
        assert set(alternatives.get_values_for_type(x509.DNSName)) == names
        assert bool(alternatives.get_values_for_type(x509.IPAddress)) == (ExtendedKeyUsageOID.SERVER_AUTH in usages)


def test_what_is_sealed_to_a_site_only_the_site_can_open(tmp_path: Path) -> None:
    site = open_keys(tmp_path, sites=("north",)).sites["north"]
    private = PrivateKey(site.seal_key_file.read_bytes())
    assert bytes(private.public_key) == site.seal_public_file.read_bytes()
    sealed = SealedBox(private.public_key).encrypt(b"secret")
    assert SealedBox(private).decrypt(sealed) == b"secret"
    assert len(site.secrets_key_file.read_bytes()) == 32


def test_a_damaged_seed_is_named_and_never_shown(tmp_path: Path) -> None:
    seed_file = open_keys(tmp_path).hub.service.seed_file
    seed = read_seed(seed_file)
    seed_file.write_text(seed[:-4] + "\n")
    with pytest.raises(ValueError, match=r"hub\.nk") as damaged:
        open_keys(tmp_path)
    assert seed[:20] not in str(damaged.value)


@pytest.mark.parametrize("site", ["hub", "", "North", "a_b", "-a", "a" * 41, "a.b"])
def test_a_name_that_cannot_be_a_site_is_refused(tmp_path: Path, site: str) -> None:
    with pytest.raises(StackError, match="site"):
        open_keys(tmp_path, sites=(site,))
