"""TLS towards a copy repository: the server's certificate is pinned by its SHA-256 fingerprint."""

import hashlib
import ssl
from pathlib import Path


def certificate_fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate in DER, as 64 hex digits."""
    return hashlib.sha256(der).hexdigest()


def file_fingerprint(certificate: Path) -> str:
    """The fingerprint of the first certificate in a PEM file."""
    text = certificate.read_text()
    end = "-----END CERTIFICATE-----"
    begin = text.index("-----BEGIN CERTIFICATE-----")
    return certificate_fingerprint(ssl.PEM_cert_to_DER_cert(text[begin : text.index(end) + len(end)]))


def pinned_context(
    *, fingerprint: str, ca: str, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """A client context that talks to one certificate only, with a client certificate of ours if given.

    The check stands in the handshake: not a byte, and no token, goes to anybody else. Names are not checked, the
    fingerprint says more. `ca` is PEM; empty means that the pin alone decides.
    """

    class PinnedObject(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            found = certificate_fingerprint(self.getpeercert(binary_form=True) or b"")
            if found != fingerprint:
                raise ssl.SSLCertVerificationError(
                    f"the repository shows a certificate with fingerprint {found[:16]}..., "
                    f"the grant names {fingerprint[:16]}..."
                )

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.sslobject_class = PinnedObject
    if ca:
        context.load_verify_locations(cadata=ca)
    else:
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context
