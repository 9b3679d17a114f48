"""What is made quicker of nats-py says the same as what it replaces."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from bus.client import HEADERS_OF_OURS, BusClient
from bus.messages import Message

FORMS = (
    b"NATS/1.0\r\ncontent-type: application/json\r\nNats-Msg-Id: a:b\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n",
    b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\nNats-Pending-Bytes: 0\r\n\r\n",
    b"NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 3\r\n\r\n",
    b"NATS/1.0 404 No Messages\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
)


@pytest.mark.parametrize("raw", FORMS)
async def test_headers_are_read_as_nats_py_reads_them(raw: bytes) -> None:
    expected = await Client()._process_headers(raw)
    headers = await BusClient()._process_headers(raw)
    assert dict(headers) == expected
    assert Message("a", b"", None, headers).status == (expected or {}).get("Status")


@given(st.binary(max_size=40).map(lambda rest: b"NATS/1.0" + rest) | st.binary(max_size=20))
def test_no_header_that_somebody_sends_is_too_odd(raw: bytes) -> None:
    """An exception here would end the reading of the connection."""
    headers = BusClient()._lazily(raw)
    assert {key: headers[key] for key in headers} == dict(headers)
    assert isinstance(Message("a", b"", None, headers).status, str | None)


@given(
    headers=st.dictionaries(st.sampled_from([*HEADERS_OF_OURS, "traceparent"]), st.text(max_size=20), max_size=5),
    payload=st.binary(max_size=10),
)
async def test_headers_are_written_as_nats_py_writes_them(headers: dict[str, Any], payload: bytes) -> None:
    theirs, ours = Client(), BusClient()
    written = {key: value.strip() for key, value in headers.items()}  # ours come without blanks around them
    for client in (theirs, ours):
        await client._send_publish("a.b", "", payload, len(payload), written or None)
    assert b"".join(ours._pending) == b"".join(theirs._pending) != b""
