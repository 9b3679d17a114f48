"""Server-side apply: which manager owns which field. Maps are merged, lists are owned whole."""

from __future__ import annotations

import copy
from typing import Any

from tests.integration.kubernetes.simulated.store import Object, Refused

Path = tuple[str, ...]
_WHOLE = {("selector",), ("matchLabels",)}
"""Maps that the real server, too, takes as one value."""
_NOT_OWNED = {("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")}


def leaves(body: Any, at: Path = ()) -> dict[Path, Any]:
    """The fields that a body sets."""
    if isinstance(body, dict) and body and at[-1:] not in _WHOLE:
        found: dict[Path, Any] = {}
        for name, value in body.items():
            found |= leaves(value, (*at, name))
        return found
    return {at: body}


def owners(found: Object) -> dict[tuple[str, str], set[Path]]:
    """The fields of each (manager, operation)."""
    return {
        (entry["manager"], entry["operation"]): _paths(entry["fieldsV1"])
        for entry in found["metadata"].get("managedFields") or ()
    }


def apply(before: Object | None, body: Object, *, manager: str, force: bool) -> Object:
    """The object after ``manager`` applied ``body``. Raises the 409 that names who owns what."""
    wanted = {path: value for path, value in leaves(body).items() if path not in _NOT_OWNED}
    after = copy.deepcopy(before) if before is not None else {}
    known = owners(after) if before is not None else {}
    mine = (manager, "Apply")
    conflicts = [
        (other[0], ".".join(path))
        for other, fields in known.items()
        if other != mine
        for path in sorted(fields & wanted.keys())
        if _at(after, path) != wanted[path]
    ]
    if conflicts and not force:
        told = ", ".join(f'conflict with "{who}": .{field}' for who, field in conflicts)
        raise Refused(409, "Conflict", f"Apply failed with {len(conflicts)} conflicts: {told}")
    theirs = {path for other, fields in known.items() if other != mine for path in fields}
    for path in known.get(mine, set()) - wanted.keys() - theirs:
        _remove(after, path)
    for path, value in wanted.items():
        for other, fields in known.items():
            if other != mine and path in fields and _at(after, path) != value:
                fields.discard(path)
        _set(after, path, value)
    for name in ("apiVersion", "kind"):
        after[name] = body[name]
    after.setdefault("metadata", {})["name"] = body["metadata"]["name"]
    return _owned(after, {**known, mine: set(wanted)})


def merge(before: Object, patch: Object, *, manager: str) -> Object:
    """The object after a JSON merge patch by ``manager``, to whom the changed fields belong then."""
    after = copy.deepcopy(before)
    known = owners(after)
    mine = (manager, "Update")
    for path, value in leaves(patch).items():
        if value is None:
            _remove(after, path)
        elif value == {} or _at(after, path) == value:
            continue
        else:
            _set(after, path, value)
        for fields in known.values():
            fields.discard(path)
        if value is not None:
            known.setdefault(mine, set()).add(path)
    return _owned(after, known)


def _owned(after: Object, known: dict[tuple[str, str], set[Path]]) -> Object:
    after["metadata"]["managedFields"] = [
        {"manager": manager, "operation": operation, "fieldsType": "FieldsV1", "fieldsV1": _tree(fields)}
        for (manager, operation), fields in known.items()
        if fields
    ]
    return after


def _tree(fields: set[Path]) -> Object:
    tree: Object = {}
    for path in sorted(fields):
        node = tree
        for name in path:
            node = node.setdefault(f"f:{name}", {})
    return tree


def _paths(tree: Object, at: Path = ()) -> set[Path]:
    if not tree:
        return {at}
    found: set[Path] = set()
    for name, node in tree.items():
        found |= _paths(node, (*at, name.removeprefix("f:")))
    return found


def _at(body: Any, path: Path) -> Any:
    for name in path:
        if not isinstance(body, dict) or name not in body:
            return None
        body = body[name]
    return body


def _set(body: Object, path: Path, value: Any) -> None:
    for name in path[:-1]:
        following = body.get(name)
        if not isinstance(following, dict):
            following = body[name] = {}
        body = following
    body[path[-1]] = copy.deepcopy(value)


def _remove(body: Object, path: Path) -> None:
    parent = _at(body, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
