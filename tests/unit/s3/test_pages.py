"""What S3 says in XML, by the names that Amazon and SeaweedFS give things."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brokers.s3 import attributes
from brokers.s3.pages import (
    Unreadable,
    Version,
    error_of,
    following_page,
    objects_page,
    parts_of,
    tags_of,
    versions_page,
)
from brokers.s3.refusals import explain

AMAZON = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@pytest.mark.parametrize("namespace", ["", AMAZON])
def test_only_the_newest_versions_of_what_is_there(namespace: str) -> None:
    body = f"""<?xml version="1.0"?><ListVersionsResult {namespace}><IsTruncated>true</IsTruncated>
    <NextKeyMarker>b&amp;c</NextKeyMarker><NextVersionIdMarker>v9</NextVersionIdMarker>
    <Version><Key>a</Key><VersionId>v2</VersionId><IsLatest>true</IsLatest><ETag>&quot;e&quot;</ETag><Size>7</Size>
      <LastModified>2026-01-01T00:00:00Z</LastModified><Owner><ID>me</ID></Owner></Version>
    <Version><Key>a</Key><VersionId>v1</VersionId><IsLatest>false</IsLatest><Size>5</Size></Version>
    <DeleteMarker><Key>d</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest></DeleteMarker>
    <Version><Key>n</Key><IsLatest>true</IsLatest><Size>0</Size></Version></ListVersionsResult>"""
    page = versions_page(body.encode())
    assert page == [Version("a", "v2", 7, '"e"', "2026-01-01T00:00:00Z"), Version("n", "null", 0)]
    assert following_page(body.encode()) == {"key-marker": "b&c", "version-id-marker": "v9"}
    assert all(version.kept for version in page)


def test_quoted_keys_are_what_they_were() -> None:
    body = f"""<ListBucketResult {AMAZON}><IsTruncated>true</IsTruncated>
    <NextContinuationToken>t/+</NextContinuationToken>
    <EncodingType>url</EncodingType><Contents><Key>a%01b+c%2Bd/%C3%BC</Key><Size>1</Size></Contents></ListBucketResult>"""
    page = objects_page(body.encode())
    assert page == [Version("a\x01b c+d/ü", "", 1)]
    assert not page[0].kept
    assert following_page(body.encode()) == {"continuation-token": "t/+"}


def test_the_last_page_has_none_behind_it() -> None:
    body = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    assert objects_page(body) == []
    assert following_page(body) == {}


def test_errors() -> None:
    assert error_of(b"<Error><Code>C</Code><Message>m</Message></Error>") == ("C", "m")
    assert error_of(b"") == ("", "")
    assert error_of(b"<html>not XML") == ("", "")
    with pytest.raises(Unreadable, match="can't be read"):
        objects_page(b"<cut")


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Please log in</body></html>",
        b"<Error><Code>SlowDown</Code></Error>",
        b"<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><Key>a</Key><Size>\xd9\xa3</Size></Contents></ListBucketResult>",
        b"<?xml version='1.0' encoding='no-such'?><ListBucketResult/>",
        b"",
    ],
)
def test_what_is_no_listing_is_no_empty_bucket(body: bytes) -> None:
    for page in (objects_page, versions_page):
        with pytest.raises(Unreadable) as error:
            page(
                body.replace(b"Contents", b"Version").replace(b"<Size", b"<IsLatest>true</IsLatest><Size")
                if page is versions_page
                else body
            )
        problem = explain(error.value)
        assert problem is not None
        assert (problem.code, problem.temporary) == ("s3", False)


@settings(derandomize=True)
@given(
    noise=st.binary(max_size=30),
    at=st.integers(0, 400),
    gone=st.integers(0, 60),
)
def test_a_damaged_listing_is_read_or_refused(noise: bytes, at: int, gone: int) -> None:
    body = bytearray(
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        b"<EncodingType>url</EncodingType><Contents><Key>a%2Fb</Key><Size>7</Size><ETag>&quot;e&quot;</ETag>"
        b"<LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>"
    )
    body[at : at + gone] = noise
    following_page(body)
    try:
        page = objects_page(body)
    except Unreadable:
        return
    assert all(version.key and version.size >= 0 for version in page)


def test_an_upload_is_completed_with_its_tags_in_order() -> None:
    assert parts_of(['"x"', "y"]) == (
        b'<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>"x"</ETag></Part>'
        b"<Part><PartNumber>2</PartNumber><ETag>y</ETag></Part></CompleteMultipartUpload>"
    )


def test_what_an_object_carries_comes_back_as_headers() -> None:
    headers = {
        "content-type": "text/html",
        "content-encoding": "gzip,aws-chunked",
        "cache-control": "no-cache",
        "expires": "Thu, 01 Dec 2026 16:00:00 GMT",
        "x-amz-website-redirect-location": "/there",
        "x-amz-meta-owner": "me",
        "x-amz-storage-class": "GLACIER_IR",
        "x-amz-version-id": "v",
        "date": "now",
    }
    metadata = attributes.of_answer(headers)
    tags = tags_of(
        f"<Tagging {AMAZON}><TagSet><Tag><Key>a b</Key><Value>c&amp;d</Value></Tag></TagSet></Tagging>".encode()
    )
    metadata |= {attributes.TAGS: attributes.tagged(tags), attributes.MARK: "v e m"}
    assert attributes.to_headers(metadata) == {
        "content-type": "text/html",
        "content-encoding": "gzip",
        "cache-control": "no-cache",
        "expires": "Thu, 01 Dec 2026 16:00:00 GMT",
        "x-amz-website-redirect-location": "/there",
        "x-amz-meta-owner": "me",
        "x-amz-tagging": "a%20b=c%26d",
    }


def test_copies_of_before_are_restored_as_they_were_written() -> None:
    metadata = {"Content-Type": "a/b", "Content-Disposition": "attachment", "owner": "me"}
    headers = {"content-type": "a/b", "content-disposition": "attachment", "x-amz-meta-owner": "me"}
    assert attributes.to_headers(metadata) == headers
