"""``docs/sdk.md``: the client for programs, from the client itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from hub.client import errors
from hub.client.client import Client
from hub.client.errors import ClientError
from hub.client.sync import SyncClient

_HEAD = """\
# The SDK for Python

Made from the client by `python -m hub.cli.pages` (`make generate`); `make check` holds it to that.

`hub.client` is everything that the command line does, for programs: typed, with asyncio (`Client`) or without
(`SyncClient`, which runs a `Client` in a thread of its own). Both have the same methods.

```python
from pathlib import Path

from hub.client import Client, SyncClient, read_context

context = read_context(Path("ci.json"))  # as 'calque principal add' wrote it; or load_context(home_directory())

async with await Client.connect(context) as client:
    started = await client.save("ideas", name="friday")
    await client.wait(started.operation, timeout=600)

with SyncClient.connect(context) as client:
    started = client.save("ideas", name="friday")
    client.wait(started.operation, timeout=600)
```

- **A verb returns when its command is taken**, not when it is done. `Started` has the command's id, that of what it is
  about, and the operation, which `wait` waits for. `queued` names a site that has not answered yet.
- **A verb may be repeated.** With the same `command` (a UUIDv7 of yours) it has one effect and the same answer. That is
  what to do after a crash, or after `HubUnreachableError`.
- **Names may be ids.** A name means what holds it now.
- **What a principal may not do** raises `ForbiddenError`; the server holds every credential to its role.

Guides: [to publish commands](how-to/publish-commands.md), [to subscribe to events](how-to/subscribe-to-events.md).
Without Python, or without this package, the same is done with any NATS client: [messages](messages.md).

## Durable subscriptions

```python
async with client.subscribe("billing", types=["image.saved"], start="first") as events:
    async for event in events:  # 'with' and 'for' with a SyncClient
        await charge(event.id, event.data)
```

At least once, in the order of the record, without gaps. An event is acknowledged when the next one is asked for, or
when the body of `async with` ends well; one whose body failed comes again the next time, and so may the last ones after
a broken connection: keep the ids of what has an effect. One reader at a time: who opens a subscription takes over, and
the one before gets a `ConflictError`. An event that you can't handle is yours to put aside; none is dropped for you.

An event has `id`, `sequence`, `type`, `site`, `aggregate`, `about` (the id of the thing), `time`, `data` (as JSON),
`fact` (typed) and `delivered` (how often it came).
"""


def sdk_page() -> str:
    """The whole page."""
    return _HEAD + "".join(_methods()) + "".join(_errors())


def _methods() -> Iterator[str]:
    yield "\n## Methods\n\nAs `Client` has them; with a `SyncClient`, leave out `await` and `async`.\n\n"
    yield "| method | meaning |\n| --- | --- |\n"
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if name.startswith("_") or not hasattr(SyncClient, name):
            continue
        parameters = [each for each in inspect.signature(method).parameters if each != "self"]
        said = inspect.cleandoc(method.__doc__ or "").partition("\n\n")[0]
        yield f"| `{name}({', '.join(parameters)})` | {_cell(said)} |\n"


def _errors() -> Iterator[str]:
    yield "\n## Errors\n\nAll are `ClientError`; `problem` has code, field, message and remedy ([codes](errors.md)),\n"
    yield "`correlation` the id of the command or operation.\n\n| error | meaning |\n| --- | --- |\n"
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, ClientError) and kind is not ClientError:
            yield f"| `{name}` | {_cell(inspect.cleandoc(kind.__doc__ or ''))} |\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")
