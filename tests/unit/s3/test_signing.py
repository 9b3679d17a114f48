"""Signatures are those that Amazon's own library makes."""

from __future__ import annotations

import hashlib
import time
from urllib.parse import parse_qsl, unquote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given, settings
from hypothesis import strategies as st

from brokers.s3.places import Keys
from brokers.s3.signing import Signer, query_of, quoted
from schemas.secrets import Secret

ODD = " +%/?#&=~*'()!,;:@$\\[]{}<>\"^|`\t\n\r\0ü日\u2028\U0001f600."
KEY = st.text(alphabet=st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), min_size=1)
PARAMETER = st.text(alphabet=st.one_of(st.sampled_from(ODD), st.characters(exclude_categories=["Cs"])), max_size=20)
NAMES = ("x-amz-tagging", "x-amz-meta-a", "x-amz-meta-zz", "x-amz-copy-source", "content-type", "range", "if-match")
VALUE = st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=30)


@settings(derandomize=True)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE"]),
    key=KEY,
    query=st.dictionaries(PARAMETER.filter(bool), PARAMETER, max_size=3),
    headers=st.dictionaries(st.sampled_from(NAMES), VALUE.filter(lambda value: value.strip() != ""), max_size=4),
    body=st.binary(max_size=20),
    token=st.sampled_from(["", "FwoGZXIvYXdz/+=="]),
    virtual=st.booleans(),
)
@example("GET", "//a//b/", {"versionId": "a/b+c==", "tagging": ""}, {"range": "bytes=0-1"}, b"", "", False)
@example("GET", "./a/../b", {}, {}, b"", "", True)
@example("PUT", "a b+c%20", {}, {"x-amz-meta-zz": " two  blanks ", "content-type": "text/plain"}, b"x", "t", False)
def test_a_signature(
    method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes, token: str, virtual: bool
) -> None:
    keys = Keys("KEY", Secret(value="secret"), Secret(value=token) if token else None)
    signer = Signer(keys, region="eu-1")
    host = "bucket.h:80" if virtual else "h:80"
    sha256, path = hashlib.sha256(body).hexdigest(), f"{'' if virtual else '/bucket'}/{quoted(key)}"
    head = signer.head(method, path, query_of(query), host=host, headers=headers, sha256=sha256, length=len(body))
    line, *lines = head.decode().split("\r\n")
    told = dict(each.split(": ", 1) for each in lines if each)
    sent, target, version = line.split(" ")
    assert (sent, version, told["Content-Length"]) == (method, "HTTP/1.1", str(len(body)))
    assert dict(parse_qsl(target.partition("?")[2], keep_blank_values=True)) == query
    assert unquote(target.partition("?")[0], errors="strict") == f"{'' if virtual else '/bucket'}/{key}"
    assert "+" not in target  # which some servers take for a blank
    assert {name: told[name] for name in headers} == headers
    assert told.get("x-amz-security-token", "") == token

    request = AWSRequest(method, f"http://{host}{target}")
    auth = S3SigV4Auth(Credentials("KEY", "secret", token or None), "s3", "eu-1")
    for name in list(request.headers):
        del request.headers[name]
    request.headers["host"] = host
    for name, value in told.items():
        if name.startswith("x-amz-") or name == "content-type":
            request.headers[name] = value
    request.context["timestamp"] = told["x-amz-date"]
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    assert told["Authorization"].endswith(f"Signature={signature}")
    assert f"SignedHeaders={auth.signed_headers(auth.headers_to_sign(request))}," in told["Authorization"]


def test_the_key_of_a_day_is_made_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer(Keys("KEY", Secret(value="secret")), region="eu-1")
    told = []
    for seconds in (1.0, 2.0, 86_400.0):
        monkeypatch.setattr(time, "time", lambda at=seconds: at)
        told.append(signer.head("GET", "/", "", host="h", headers={}, sha256="", length=0))
    assert len({line for head in told for line in head.split(b"\r\n") if line.startswith(b"x-amz-date")}) == 3
    assert [b"/19700101/" in head for head in told] == [True, True, False]
    assert len(set(told)) == 3


@pytest.mark.parametrize("value", ["a\r\nAuthorization: mine", "a\nb", "a\rb", "a\0b"])
def test_no_header_smuggles_another_one_in(value: str) -> None:
    signer = Signer(Keys("KEY", Secret(value="secret")), region="eu-1")
    for headers in ({"x-amz-meta-a": value}, {value: "a"}):
        with pytest.raises(ValueError, match="would end before"):
            signer.head("PUT", "/", "", host="h", headers=headers, sha256="", length=0)
