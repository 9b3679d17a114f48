"""Signatures are those that Amazon's own library makes."""

from __future__ import annotations

import hashlib
import time
from urllib.parse import parse_qsl

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from brokers.s3.signing import Signer, query_of, quoted
from schemas.secrets import Secret

KEYS = [
    "a",
    "a b+c",
    "100%/%20",
    "q?x#y&z=1",
    "ünï/çødé",
    "日本",
    "~t*'()!,;:@$",
    "//a//b/",
    "./a/../b",
    "tab\tnew\nline",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({}, {}),
        ({"versionId": "a/b+c==", "tagging": ""}, {"range": "bytes=0-1", "if-match": '"x"'}),
        ({}, {"x-amz-tagging": "a=b&c=d%20e", "x-amz-meta-zz": " two  blanks ", "content-type": "text/plain"}),
    ],
)
def test_a_signature(key: str, query: dict[str, str], headers: dict[str, str]) -> None:
    signer = Signer(access_key="KEY", secret=Secret(value="secret"), region="eu-1")
    sha256, path = hashlib.sha256(b"body").hexdigest(), f"/bucket/{quoted(key)}"
    head = signer.head("PUT", path, query_of(query), host="h:80", headers=headers, sha256=sha256, length=4).decode()
    line, *lines = head.split("\r\n")
    told = dict(each.split(": ", 1) for each in lines if each)
    method, target, _ = line.split(" ")
    assert dict(parse_qsl(target.partition("?")[2], keep_blank_values=True)) == query

    request = AWSRequest(method, f"http://h:80{target}")
    auth = S3SigV4Auth(Credentials("KEY", "secret"), "s3", "eu-1")
    signed = {name: value for name, value in headers.items() if name.startswith("x-amz-")}
    for name in list(request.headers):
        del request.headers[name]
    for name, value in {
        "host": "h:80",
        "x-amz-content-sha256": sha256,
        "x-amz-date": told["x-amz-date"],
        **signed,
    }.items():
        request.headers[name] = value
    request.context["timestamp"] = told["x-amz-date"]
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)

    assert told["Authorization"].endswith(f"Signature={signature}")


def test_the_key_of_a_day_is_made_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(access_key="KEY", secret=Secret(value="secret"), region="eu-1")
    told = []
    for seconds in (0, 86_400):
        monkeypatch.setattr(time, "gmtime", lambda at=seconds: time.struct_time((1970, 1, 1 + at // 86_400, *(0,) * 6)))
        told.append(signer.head("GET", "/", "", host="h", headers={}, sha256="", length=0))
    assert told[0] != told[1]
