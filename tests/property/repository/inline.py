"""Makes what a repository does follow from its calls alone: no threads of its own, no clock, no randomness in what
has an order. So a failure comes again in every run."""

from __future__ import annotations

import contextlib
import random
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any
from unittest import mock

from brokers.repository.format1 import holds, reading, uploads


class Inline:
    """Stands for a `ThreadPoolExecutor`: does the work at once, where it was asked for."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*arguments, **named))
        except BaseException as error:
            future.set_exception(error)
        return future

    def shutdown(self, **_: object) -> None: ...


@contextlib.contextmanager
def deterministic(seed: int, now: Callable[[], float]) -> Iterator[None]:
    """While this is entered, repositories of format 1 work inline; `now` is every process's clock."""
    chosen = random.Random(seed)
    clock = types.SimpleNamespace(time=now, monotonic=now)
    with (
        mock.patch.object(uploads, "ThreadPoolExecutor", Inline),
        mock.patch.object(reading, "ThreadPoolExecutor", Inline),
        mock.patch.object(uploads, "time", clock),
        mock.patch.object(holds, "time", clock),
        mock.patch.object(holds, "os", types.SimpleNamespace(urandom=chosen.randbytes)),
    ):
        yield
