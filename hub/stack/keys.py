"""The keys of a stack: made at first start, reloaded later, never changed by adding a site.

Below `<home>/keys` (directories 0700, files 0600):

    ca.pem, ca.key                    the stack's own certificate authority
    hub/leaf.pem, leaf.key            server certificate of the hub's leaf node listener
    hub/routes/                       an authority of its own, and the certificate by which servers of one hub know
                                      each other
    hub/hub.nk, sys.nk                nkey seeds of the hub service and of SYS on the hub's server
    hub/webhooks.nk, webhooks.key     nkey seed of the webhooks' process; 32 raw bytes: the key of their secrets
    clients/<principal>.nk            nkey seed of a client principal
    copies.key                        32 random bytes, base64: the trust domain of the sites' copy repositories
    sites/<site>/leaf.pem, leaf.key   client certificate of the site's leaf connection
    sites/<site>/leaf.nk              nkey seed by which that connection logs in
    sites/<site>/crb.pem, crb.key     certificate of the site's filesystem repository broker, server and client
    sites/<site>/crb-<kind>.pem, .key   the same of a repository of another kind
    sites/<site>/sys.nk, agent.nk     nkey seeds of SYS on the site's server and of the agent
    sites/<site>/brokers/<name>.nk    nkey seed of each broker, `<kind>-<broker>`
    sites/<site>/apps.nk, apps.creds  operator's seed of the NATS server for apps, and a user of its system account
    sites/<site>/seal.key, seal.pub   X25519 key pair, 32 raw bytes each: secrets are sealed to the site
    sites/<site>/secrets.key          32 raw bytes: the key of the site's secret store

Private parts are written before public ones and each by an atomic rename, so a start that was cut
off is completed by the next.
"""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from nacl.public import PrivateKey

from bus.tokens import UNLIMITED, TokenKey, credentials, key_from_bytes, user_token
from hub.stack.files import private_directory, write_atomic
from hub.stack.names import check_name, check_site

CA_LIFETIME = dt.timedelta(days=3650)
# A leaf certificate that ran out would cut a site off; the stack lives on one machine with its CA.
CERTIFICATE_LIFETIME = dt.timedelta(days=3650)
FILESYSTEM_REPOSITORY = "crb-filesystem"
BACKDATED = dt.timedelta(hours=1)  # a clock set back a little must not make a new key invalid


@dataclass(frozen=True, kw_only=True)
class Nkey:
    """A NATS user key: the file with the seed, and the public key that stands in configurations."""

    seed_file: Path
    public: str


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM files of one certificate, its key, and the authority that both ends trust."""

    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, kw_only=True)
class HubKeys:
    """Keys that belong to the hub's server and those who connect to it."""

    leaf_tls: TlsFiles
    routes_tls: TlsFiles
    service: Nkey
    webhooks: Nkey
    webhooks_key_file: Path
    system: Nkey
    principals: Mapping[str, Nkey]


@dataclass(frozen=True, kw_only=True)
class AppsKeys:
    """Keys of a site's NATS server for apps: who signs its accounts, and who may ask its system account."""

    operator_seed_file: Path
    system_credentials_file: Path

    @property
    def operator(self) -> TokenKey:
        return TokenKey(read_seed(self.operator_seed_file))

    @property
    def system_account(self) -> TokenKey:
        return self.operator.derive("account", "system")


@dataclass(frozen=True, kw_only=True)
class SiteKeys:
    """Keys that belong to one site. ``crb_tls`` has a certificate per copy repository broker, by its name."""

    leaf_tls: TlsFiles
    leaf: Nkey
    crb_tls: Mapping[str, TlsFiles]
    system: Nkey
    agent: Nkey
    brokers: Mapping[str, Nkey]
    apps: AppsKeys
    seal_key_file: Path
    seal_public_file: Path
    secrets_key_file: Path
    copies_key_file: Path


@dataclass(frozen=True, kw_only=True)
class StackKeys:
    """All keys of a stack."""

    ca: Path
    hub: HubKeys
    sites: Mapping[str, SiteKeys] = field(default_factory=dict)


def open_keys(
    directory: Path,
    *,
    sites: Iterable[str] = (),
    brokers: Sequence[str] = (),
    principals: Iterable[str] = ("admin",),
) -> StackKeys:
    """Load the keys below the directory and make those that are missing.

    `brokers` are broker users `<kind>-<name>`, made for each of the sites. Raises `StackError` for a
    name that cannot be used and `ValueError` when a key file is damaged.
    """
    private_directory(directory)
    authority = _Authority(directory)
    hub = private_directory(directory / "hub")
    clients = private_directory(directory / "clients")
    hub_keys = HubKeys(
        leaf_tls=authority.certificate(hub, "leaf", common_name="hub", names=("localhost", "hub"), server=True),
        routes_tls=_routes(private_directory(hub / "routes")),
        service=_nkey(hub / "hub.nk"),
        webhooks=_nkey(hub / "webhooks.nk"),
        webhooks_key_file=_random_key(hub / "webhooks.key"),
        system=_nkey(hub / "sys.nk"),
        principals={name: _nkey(clients / f"{check_name(name, what='principal')}.nk") for name in principals},
    )
    return StackKeys(
        ca=authority.file,
        hub=hub_keys,
        sites={site: _site_keys(directory, authority, check_site(site), brokers) for site in sites},
    )


def _routes(place: Path) -> TlsFiles:
    authority = _Authority(place)
    return authority.certificate(place, "server", common_name="hub", names=("localhost",), server=True, client=True)


def read_seed(file: Path) -> str:
    """The nkey seed kept in a file."""
    return file.read_text().strip()


def _site_keys(directory: Path, authority: _Authority, site: str, brokers: Sequence[str]) -> SiteKeys:
    place = private_directory(directory / "sites" / site)
    seeds = private_directory(place / "brokers")
    seal_key, seal_public = _sealing_pair(place)
    return SiteKeys(
        leaf_tls=authority.certificate(place, "leaf", common_name=site, client=True),
        leaf=_nkey(place / "leaf.nk"),
        crb_tls={
            name: authority.certificate(
                place,
                # as it was called when a site had one repository
                "crb" if name == FILESYSTEM_REPOSITORY else name,
                common_name=f"crb.{site}",
                names=("localhost", f"crb.{site}"),
                server=True,
                client=True,
            )
            for name in brokers
            if name.startswith("crb-")
        },
        system=_nkey(place / "sys.nk"),
        agent=_nkey(place / "agent.nk"),
        brokers={name: _nkey(seeds / f"{check_name(name, what='broker')}.nk") for name in brokers},
        apps=_apps_keys(place),
        seal_key_file=seal_key,
        seal_public_file=seal_public,
        secrets_key_file=_random_key(place / "secrets.key"),
        copies_key_file=_domain_key(directory / "copies.key"),
    )


def make_seed() -> str:
    """A new nkey seed of a user."""
    return bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)).decode()


def public_key(seed: str) -> str:
    """The public nkey that belongs to a seed."""
    return bytes(nkeys.from_seed(bytearray(seed.encode())).public_key).decode()


def _nkey(file: Path) -> Nkey:
    if not file.exists():
        write_atomic(file, make_seed() + "\n")
    try:
        public = public_key(read_seed(file))
    except Exception as cause:
        raise ValueError(f"{file} holds no usable nkey seed ({cause}); remove it to make a new key") from cause
    return Nkey(seed_file=file, public=public)


def _apps_keys(place: Path) -> AppsKeys:
    keys = AppsKeys(operator_seed_file=place / "apps.nk", system_credentials_file=place / "apps.creds")
    if not keys.operator_seed_file.exists():
        made = key_from_bytes(os.urandom(32), "operator")
        write_atomic(keys.operator_seed_file, made.seed.value.encode() + b"\n")
    try:
        system = keys.system_account
    except ValueError as cause:
        raise ValueError(f"{keys.operator_seed_file}: {cause}; remove it to make a new key") from cause
    user = system.derive("user", "broker")
    text = user_token(
        system,
        user=user.public,
        name="broker",
        account=system.public,
        claims={"pub": {}, "sub": {}, "subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED},
        issued_at=0,
    )
    wanted = credentials(text, user.seed).value.encode()
    if not keys.system_credentials_file.exists() or keys.system_credentials_file.read_bytes() != wanted:
        write_atomic(keys.system_credentials_file, wanted)
    return keys


def _sealing_pair(place: Path) -> tuple[Path, Path]:
    private_file, public_file = place / "seal.key", place / "seal.pub"
    if not private_file.exists():
        write_atomic(private_file, bytes(PrivateKey.generate()))
    public = bytes(PrivateKey(private_file.read_bytes()).public_key)
    if not public_file.exists() or public_file.read_bytes() != public:
        write_atomic(public_file, public)
    return private_file, public_file


def _domain_key(file: Path) -> Path:
    if not file.exists():
        write_atomic(file, base64.b64encode(os.urandom(32)))
    return file


def _random_key(file: Path) -> Path:
    if not file.exists():
        write_atomic(file, os.urandom(32))
    return file


class _Authority:
    """The certificate authority of the stack; P-256 keys, since every TLS library takes them."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "ca.pem"
        key_file = directory / "ca.key"
        self._key = _private_key(key_file)
        if not self.file.exists():
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Calque embedded stack")])
            certificate = (
                _builder(subject=name, issuer=name, public_key=self._key.public_key(), lifetime=CA_LIFETIME)
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_key_usage(authority=True), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
                .sign(self._key, hashes.SHA256())
            )
            write_atomic(self.file, certificate.public_bytes(serialization.Encoding.PEM))
        self._certificate = x509.load_pem_x509_certificate(self.file.read_bytes())

    def certificate(
        self,
        place: Path,
        stem: str,
        *,
        common_name: str,
        names: Sequence[str] = (),
        server: bool = False,
        client: bool = False,
    ) -> TlsFiles:
        """Load or make `<stem>.pem` and `<stem>.key`; a server's certificate holds for 127.0.0.1 as well."""
        cert_file, key_file = place / f"{stem}.pem", place / f"{stem}.key"
        files = TlsFiles(cert=cert_file, key=key_file, ca=self.file)
        key = _private_key(key_file)
        if cert_file.exists():
            return files
        usages = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        builder = _builder(
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
            issuer=self._certificate.subject,
            public_key=key.public_key(),
            lifetime=CERTIFICATE_LIFETIME,
        )
        builder = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names or (common_name,)]
        if server:
            alternatives.append(x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")))
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        write_atomic(cert_file, certificate.public_bytes(serialization.Encoding.PEM))
        return files


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    if not file.exists():
        made = ec.generate_private_key(ec.SECP256R1())
        write_atomic(
            file,
            made.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
    key = serialization.load_pem_private_key(file.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{file} holds a key of another kind; remove it and its .pem to make new ones")
    return key


def _builder(
    *, subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey, lifetime: dt.timedelta
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + lifetime)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
