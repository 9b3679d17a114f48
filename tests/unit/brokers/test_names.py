"""Names that brokers derive from ids: fixed, short enough, and told apart."""

import re

from brokers.postgres import names as postgres
from brokers.s3 import names as s3


def test_postgres_names_fit_and_are_found_again() -> None:
    service, binding = "0198c0de-0000-7000-8000-000000000000" * 5, "b" * 300
    login = postgres.login_of(service, binding)
    assert len(login) <= 63
    assert re.search(postgres.LOGIN_PATTERN, login)
    assert re.search(postgres.DATABASE_PATTERN, postgres.database_of(service))
    assert not re.search(postgres.DATABASE_PATTERN, login)
    assert postgres.login_of("a", "b") != postgres.login_of("ab", "")


def test_names_never_change_because_data_lies_under_them() -> None:
    assert postgres.database_of("service-1") == "calque_266ff5f617ec141c3c7e4fd2"
    assert s3.bucket_of("service-1") == "calque-266ff5f617ec141c3c7e4fd2"


def test_s3_names_fit_and_are_found_again() -> None:
    identity = s3.identity_of("s" * 300, "b" * 300)
    assert len(identity) <= 64
    match = s3.IDENTITY.fullmatch(identity)
    assert match is not None
    assert match[1] == s3.bucket_of("s" * 300)
    assert s3.BUCKET.fullmatch(match[1])
    assert re.fullmatch(r"CALQUE[0-9A-F]{14}", s3.access_key_of("s", "b"))
