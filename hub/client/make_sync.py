"""Writes ``hub/client/sync.py``, the client for programs without asyncio, from the asynchronous one.

``python -m hub.client.make_sync``; with ``--check`` it writes nothing and exits with 1 when the file is out of step.
Every public method of the client gets a twin of the same name, parameters and documentation.
"""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from hub.client.client import Client

TARGET = Path(__file__).parent / "sync.py"
_LEFT_OUT = frozenset({"connect", "close"})
_HEAD = '''"""The client for programs without asyncio: the same methods, and each waits. Start at :class:`SyncClient`.

Made from hub/client/client.py by `python -m hub.client.make_sync` (`make generate`); `make check` holds it to that.
"""

from __future__ import annotations

'''
_CLASS = '''

class SyncClient:
    """A connection to a hub. Made with :meth:`connect`; a context manager. May be shared by threads.

    It runs a :class:`hub.client.Client` in a thread of its own. Errors are the same; so are the results.
    """

    def __init__(self, background: Background, client: Client) -> None:
        self._background = background
        self._client = client

    @classmethod
    def connect(cls, context: Context, *, deadline_seconds: float = CONNECT_SECONDS) -> Self:
        """Connect as the context says; raises :class:`HubUnreachableError` or :class:`ForbiddenError`."""
        background = Background(name=f"calque-client-{context.principal}")
        try:
            client = background.run(Client.connect(context, deadline_seconds=deadline_seconds))
        except BaseException:
            background.stop()
            raise
        return cls(background, client)

    def close(self) -> None:
        """Disconnect. Operations go on."""
        self._background.run(self._client.close())
        self._background.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
'''
_ALWAYS = (
    "from typing import Self",
    "from hub.client.background import Background",
    "from hub.client.client import CONNECT_SECONDS",
    "from hub.client.client import Client",
    "from hub.client.context import Context",
)
_TWINS = {"AsyncIterator": "Iterator", "Subscription": "SyncSubscription"}
_TWIN_IMPORTS = {
    "Iterator": "from collections.abc import Iterator",
    "SyncSubscription": "from hub.client.background import SyncSubscription",
}


def text() -> str:
    """The whole module, formatted."""
    imports = set(_ALWAYS)
    methods = []
    for function, known in _functions():
        methods.append(_twin(function))
        for name in _names(function):
            if name in _TWIN_IMPORTS:
                imports.add(_TWIN_IMPORTS[name])
            elif name in known:
                imports.add(known[name])
    raw = (
        _HEAD + "\n".join(sorted(imports)) + '\n\nT = TypeVar("T", bound=queries.View)\n' + _CLASS + "\n".join(methods)
    )
    return _formatted(raw)


def _functions() -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, dict[str, str]]]:
    """Each public method with what its module imports, by name."""
    seen: set[str] = set(_LEFT_OUT)
    for kind in Client.__mro__:
        if not kind.__module__.startswith("hub.client"):
            continue
        module = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
        known = _imports(module)
        body = next(node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and _public(node) and node.name not in seen:
                seen.add(node.name)
                yield node, known


def _imports(module: ast.Module) -> dict[str, str]:
    found = {"TypeVar": "from typing import TypeVar", "queries": "from schemas import queries"}
    for node in module.body:
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            found.update(
                {alias.asname or alias.name: f"from {node.module} import {alias.name}" for alias in node.names}
            )
    return found


def _public(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    marks = " ".join(ast.unparse(each) for each in node.decorator_list)
    return not node.name.startswith("_") and "abstractmethod" not in marks and "property" not in marks


def _names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    parts: list[ast.AST] = [function.args]
    if function.returns is not None:
        parts.append(function.returns)
    names = {node.id for part in parts for node in ast.walk(part) if isinstance(node, ast.Name)}
    return {_TWINS.get(name, name) for name in names} | {"TypeVar", "queries"}


def _twin(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    given = function.args
    call = [argument.arg for argument in given.args[1:]]
    call += [f"{argument.arg}={argument.arg}" for argument in given.kwonlyargs]
    inner = f"self._client.{function.name}({', '.join(call)})"
    returns = ast.unparse(function.returns) if function.returns is not None else "None"
    if returns.startswith("AsyncIterator"):
        body, returns = f"return self._background.iterate({inner})", returns.replace("AsyncIterator", "Iterator", 1)
    elif isinstance(function, ast.AsyncFunctionDef):
        body = f"return self._background.run({inner})"
    elif returns == "Subscription":
        body, returns = f"return SyncSubscription(self._background, {inner})", "SyncSubscription"
    else:
        raise TypeError(f"{function.name}: no twin for a method that returns {returns}")
    said = textwrap.indent(f'"""{ast.get_docstring(function, clean=True) or ""}"""', " " * 8).strip()
    return f"""
    def {function.name}({ast.unparse(given)}) -> {returns}:
        {said}
        {body}
"""


def _formatted(raw: str) -> str:
    ruff = Path(sys.executable).parent / "ruff"
    name = ["--stdin-filename", str(TARGET)]
    sorted_ = _through([str(ruff), "check", "--quiet", "--fix", "--select", "I", *name, "-"], raw)
    return _through([str(ruff), "format", "--quiet", *name, "-"], sorted_)


def _through(command: Sequence[str], raw: str) -> str:
    return subprocess.run(command, input=raw, capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str]) -> int:
    """Write or compare; 0 when in step, 1 when not, 2 for wrong usage."""
    if list(arguments) not in ([], ["--check"]):
        sys.stderr.write("usage: python -m hub.client.make_sync [--check]\n")
        return 2
    wanted = text()
    there = TARGET.read_text() if TARGET.exists() else ""
    if arguments:
        if there != wanted:
            sys.stderr.write("hub/client/sync.py is not what the client makes; run: make generate\n")
        return int(there != wanted)
    if there != wanted:
        TARGET.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
