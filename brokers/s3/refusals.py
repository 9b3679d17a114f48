"""What an S3 server says when it does not do what it is asked, and who has to act then."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from brokers.s3.answers import Answer
from brokers.s3.pages import Unreadable, error_of
from schemas.problems import Problem, permanent, temporary

RETRY_SECONDS = 2.0
CLOCK_SECONDS = 60.0
BUSY = frozenset({429, 500, 502, 503, 504})
_KEYS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "Forbidden", "InvalidToken", "ExpiredToken"}
)
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_REGION = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed"})
_PROXY_WANTS = 407
_KMS = re.compile(r"\bkms\b", re.IGNORECASE)
_OWN_KEY = re.compile(r"Server Side Encryption.*(?:correct parameters|customer)|SSE-C\b", re.IGNORECASE | re.DOTALL)


class Refused(Exception):
    """An error answer: the code of S3 (the status where there is no body), the status, and what was asked. ``region``
    and ``elsewhere`` are where the server says that the bucket is; ``server_time`` is its clock, in seconds since the
    epoch, where it told it."""

    def __init__(
        self,
        code: str,
        status: int,
        message: str,
        *,
        asked: str,
        region: str = "",
        elsewhere: str = "",
        server_time: float | None = None,
    ) -> None:
        super().__init__(f"{asked}: {message or code}")
        self.code = code
        self.status = status
        self.message = message or code
        self.asked = asked
        self.region = region
        self.elsewhere = elsewhere
        self.server_time = server_time


class Unreachable(Exception):
    """No answer came, several times in a row."""


def refusal(answer: Answer, asked: str) -> Refused:
    """What an error answer says."""
    code, message = error_of(answer.body)
    place = urlsplit(answer.headers.get("location", ""))
    return Refused(
        code or str(answer.status),
        answer.status,
        message,
        asked=asked,
        region=answer.headers.get("x-amz-bucket-region", ""),
        # Without what else may stand in an address.
        elsewhere=f"{place.scheme}://{place.hostname}" if place.hostname else "",
        server_time=_told_time(answer),
    )


def explain(error: BaseException) -> Problem | None:
    """The problem that an error of a request stands for."""
    if isinstance(error, Unreachable):
        return temporary("unavailable", "S3 does not answer", retry_after_seconds=RETRY_SECONDS)
    if isinstance(error, Unreadable):
        return permanent("s3", f"S3: {error}", field="endpoint", remedy="check that the endpoint is an S3 API")
    if not isinstance(error, Refused):
        return None
    if error.status in BUSY:
        return temporary("unavailable", f"S3: {error.message}", retry_after_seconds=RETRY_SECONDS)
    if error.code in _CLOCK:
        return temporary(
            "clock_skew",
            f"S3 refuses what this machine signs, because their clocks differ{_difference(error)}: set them",
            retry_after_seconds=CLOCK_SECONDS,
        )
    if error.status == _PROXY_WANTS:
        return permanent("proxy", "the proxy of HTTP_PROXY wants another user or password", field="HTTP_PROXY")
    if error.code in _KEYS and _KMS.search(error.message):
        return permanent(
            "unauthorised",
            f"S3: {error}",
            remedy="let the access key use the KMS key that the object is encrypted with: kms:Decrypt",
        )
    if error.code in _KEYS:
        return permanent(
            "unauthorised",
            f"S3 refuses the broker: {error.message}",
            remedy="check access_key_file and secret_key_file",
        )
    if error.code in _REGION or error.region:
        region = f" {error.region}" if error.region else ""
        return permanent("wrong_region", f"S3: {error.message}", remedy=f"set the region to the bucket's own{region}")
    if error.status == 307:
        return temporary("unavailable", f"S3: {error.message}", retry_after_seconds=CLOCK_SECONDS)
    if error.status < 400:
        where = f" to {error.elsewhere}" if error.elsewhere else ""
        return permanent(
            "s3",
            f"the endpoint is no S3 API: it points elsewhere{where}",
            field="endpoint",
            remedy="set endpoint to the address of the S3 API itself: keys are not sent on",
        )
    if error.status == 400 and _OWN_KEY.search(error.message):
        return permanent(
            "own_key",
            f"{error.asked}: it is encrypted with a key that its owner sends along (SSE-C) and S3 does not keep",
            remedy="a bucket with such objects can't be copied: write them anew with a key of the server's",
        )
    if error.code == "InvalidObjectState":
        return permanent(
            "archived", f"{error.asked}: it lies in an archive", remedy="bring the object back, then copy again"
        )
    return permanent("s3", f"S3: {error}")


def _told_time(answer: Answer) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return None


def _difference(error: Refused) -> str:
    if error.server_time is None:
        return ""
    seconds = time.time() - error.server_time
    return f": this machine's is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
