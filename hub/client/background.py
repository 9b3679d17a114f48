"""Runs the asynchronous client for programs that are not: an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from hub.client.subscriptions import SubscribedEvent, Subscription
from schemas.subscriptions import SubscriptionPlace

T = TypeVar("T")


class Background:
    """An event loop in a thread. What it runs may be waited for by any thread but its own."""

    def __init__(self, *, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, or what it raises; cancelled when the waiting is interrupted."""
        if not self._thread.is_alive():
            work.close()
            raise RuntimeError("the client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Item after item; whoever leaves early has it closed."""
        try:
            while (found := self.run(_next(items))) is not None:
                yield found[0]
        finally:
            close = getattr(items, "aclose", None)
            if close is not None and self._thread.is_alive():
                self.run(close())

    def stop(self) -> None:
        """End the loop and its thread; safe to repeat."""
        if self._thread.is_alive():
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        if not self._loop.is_closed():
            self._loop.close()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()


async def _next(items: AsyncIterator[T]) -> tuple[T] | None:
    try:
        return (await anext(items),)
    except StopAsyncIteration:
        return None


class SyncSubscription:
    """An open durable subscription, as :class:`hub.client.subscriptions.Subscription`, for ``with`` and ``for``."""

    def __init__(self, background: Background, subscription: Subscription) -> None:
        self._background = background
        self._subscription = subscription

    @property
    def place(self) -> SubscriptionPlace:
        """The subscription as it was when it was opened."""
        return self._subscription.place

    def __enter__(self) -> Self:
        self._background.run(self._subscription.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._background.run(self._subscription.__aexit__(kind, error, trace))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> SubscribedEvent:
        """The next event; the one before is acknowledged."""
        found = self._background.run(_next(self._subscription))
        if found is None:
            raise StopIteration
        return found[0]
