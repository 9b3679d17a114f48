"""Ways of these tests: what an error has to look like, templates of one's own, a save that takes its time."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from hub.cli.main import execute
from hub.client import Client, OperationFailedError, Started
from tests.e2e.stack import HACKATHON, Ended, Stack

OPERATION_SECONDS = 60.0
_ONE_AT_A_TIME = asyncio.Lock()


def refused(ended: Ended, code: int, *words: str) -> None:
    """Assert that a command failed with ``code``, one clear error with all ``words`` on stderr, no data on stdout."""
    said = f"{ended.code}\n{ended.stdout}\n{ended.stderr}"
    assert ended.code == code, said
    assert ended.stdout == "", said
    assert "Traceback" not in ended.stderr, said
    assert "error inside calque" not in ended.stderr, said
    missing = [word for word in words if word not in ended.stderr]
    assert not missing, f"{missing} not in: {said}"


async def command(stack: Stack, *arguments: str) -> Ended:
    """Run a command line of the CLI inside this process, one at a time: many of them then cost little.

    What a process of its own does is seen with :meth:`Stack.cli`.
    """

    def run() -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = execute(["--home", str(stack.home), *arguments])
        return Ended(code, out.getvalue(), err.getvalue())

    async with _ONE_AT_A_TIME:
        return await asyncio.to_thread(run)


async def must(stack: Stack, *arguments: str) -> Ended:
    """Like :func:`command`, and it has to succeed."""
    done = await command(stack, *arguments)
    assert done.code == 0, f"calque {' '.join(arguments)}: {done.code}\n{done.stdout}\n{done.stderr}"
    return done


async def clear(stack: Stack, *, but: Collection[str] = ()) -> None:
    """Remove every app and every image, through the SDK, but those of these names."""
    async with await stack.client() as client:
        for view in await client.operations(state="running"):
            await ended(client, view.id)
        deletions = [await client.delete(app.id) for app in await client.apps() if app.name not in but]
        deletions += [await client.delete_image(image.id) for image in await client.images() if image.name not in but]
        await asyncio.gather(*(finished(client, deletion) for deletion in deletions))


async def finished(client: Client, started: Started) -> None:
    """Wait until what was started has succeeded."""
    if started.operation is not None:
        await client.wait(started.operation, timeout=OPERATION_SECONDS)


async def ended(client: Client, operation: str) -> str:
    """The state in which an operation ended, whichever it is."""
    try:
        return (await client.wait(operation, timeout=OPERATION_SECONDS)).state
    except OperationFailedError as error:
        return error.view.state


@contextmanager
def held(stack: Stack, part: str) -> Iterator[None]:
    """While inside, ``part`` stands still, so that an operation that needs it goes on but does not end."""
    pid = stack.pid(part)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def slow_save(stack: Stack, app: str, image: str) -> AsyncIterator[str]:
    """While inside, ``app`` is being saved as ``image`` and does not come to an end; the operation's id."""
    site = (await must(stack, "app", "describe", app, "-o", "json")).json["site"]
    with held(stack, f"{site}-crb-filesystem"):
        started = await must(stack, "save", app, "--name", image, "--no-wait", "-o", "json")
        yield str(started.json["operation"])


def template(directory: Path, name: str, **changes: Any) -> Path:
    """A template file like that of the sample application, called ``name``, with ``changes`` on top."""
    document = yaml.safe_load((HACKATHON / "calque.yaml").read_text())
    web = document["services"]["web"]
    web["artifact"] = {**web.pop("artifacts")[0], "directory": str(HACKATHON / "app")}
    document.update({"name": name, **changes})
    file = directory / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file
