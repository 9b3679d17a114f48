"""The client SDK: everything that the CLI does, for programs. Start at :class:`Client`."""

from hub.client.client import Client
from hub.client.context import Context, home_directory, load_context, read_context
from hub.client.errors import (
    ClientError,
    ConflictError,
    ForbiddenError,
    HubUnreachableError,
    InvalidError,
    NotFoundError,
    OperationFailedError,
    RefusedError,
    WaitTimedOutError,
)
from hub.client.planning import planned
from hub.client.started import Started
from hub.client.subscriptions import SubscribedEvent, Subscription
from hub.client.sync import SyncClient
from hub.client.watching import Snapshot

__all__ = [
    "Client",
    "ClientError",
    "ConflictError",
    "Context",
    "ForbiddenError",
    "HubUnreachableError",
    "InvalidError",
    "NotFoundError",
    "OperationFailedError",
    "RefusedError",
    "Snapshot",
    "Started",
    "SubscribedEvent",
    "Subscription",
    "SyncClient",
    "WaitTimedOutError",
    "home_directory",
    "load_context",
    "planned",
    "read_context",
]
