"""Signatures of requests to S3 (Amazon's version 4), as the bytes that stand at the head of an HTTP request."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from urllib.parse import quote

from brokers.s3.places import Keys

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
"""Stands in place of the digest of a body that is not signed."""
_SIGNED = "host;x-amz-content-sha256;x-amz-date"
_TYPE = "content-type"


def quoted(key: str) -> str:
    """A key as it stands in a URL: every byte as S3 signs it, none cleaned away."""
    return quote(key, safe="/")


def query_of(parameters: Mapping[str, str]) -> str:
    """Parameters of a request in the order and spelling in which they are signed."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items())
    return "&".join(f"{name}={value}" for name, value in pairs)


class Signer:
    """Signs with one pair of keys for one region. The key of a day is derived once."""

    def __init__(self, keys: Keys, *, region: str) -> None:
        self.keys = keys
        self._region = region
        self._second, self._told = 0, ""
        self._day = ""
        self._key = b""
        self._token = keys.token.value if keys.token is not None else ""

    def head(
        self,
        method: str,
        path: str,
        query: str,
        *,
        host: str,
        headers: Mapping[str, str],
        sha256: str,
        length: int,
        prefix: str = "",
    ) -> bytes:
        """The head of a request. ``path`` and ``query`` are spelled as they are sent; ``headers`` have names in small
        letters, and those that S3 wants signed are: what begins with ``x-amz-``, and the type; ``sha256`` is that of
        the body, or :data:`UNSIGNED`; ``prefix`` stands before the path when the request goes to a proxy. Raises
        ValueError when a header can't be sent."""
        moment = self._moment()
        own = [(name, value) for name, value in headers.items() if name.startswith("x-amz-") or name == _TYPE]
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if more.count("\r") != len(headers) or more.count("\n") != len(headers) or "\0" in more:
            raise ValueError("a header would end before its value does")
        if self._token:
            own.append(("x-amz-security-token", self._token))
            more += f"x-amz-security-token: {self._token}\r\n"
        canonical, names = f"host:{host}\nx-amz-content-sha256:{sha256}\nx-amz-date:{moment}\n", _SIGNED
        if own:
            fields = {"host": host, "x-amz-content-sha256": sha256, "x-amz-date": moment}
            signed = sorted([*fields.items(), *((name, " ".join(value.split())) for name, value in own)])
            canonical = "".join(f"{name}:{value}\n" for name, value in signed)
            names = ";".join(name for name, _ in signed)
        request = f"{method}\n{path}\n{query}\n{canonical}\n{names}\n{sha256}"
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        signature = hmac.digest(self._key_of(moment[:8]), text.encode(), "sha256").hex()
        target = f"{prefix}{path}?{query}" if query else f"{prefix}{path}"
        return (
            f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n"
            f"x-amz-content-sha256: {sha256}\r\nx-amz-date: {moment}\r\n{more}"
            f"Authorization: AWS4-HMAC-SHA256 Credential={self.keys.access_key}/{scope},"
            f"SignedHeaders={names},Signature={signature}\r\n\r\n"
        ).encode()

    def _moment(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._told = second, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        return self._told

    def _key_of(self, day: str) -> bytes:
        if day != self._day:
            key = f"AWS4{self.keys.secret.value}".encode()
            for step in (day, self._region, "s3", "aws4_request"):
                key = hmac.digest(key, step.encode(), "sha256")
            self._day, self._key = day, key
        return self._key
