"""Reads YAML into plain values that remember their places.

Scalars stay the text that was written, so that ``version: 1.10`` is ``1.10`` and not 1.1; only an empty one or
``null`` becomes ``None``. Types come later, from the model. The file is composed, never constructed: no tag can
make anything but mappings, lists and text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from hub.manifest.faults import Fault, ManifestError
from schemas.problems import Problem, invalid

Value: TypeAlias = "dict[str, Value] | list[Value] | str | None"
Path: TypeAlias = tuple[str | int, ...]
Place: TypeAlias = tuple[int, int]

MAX_BYTES = 1024 * 1024
_MAX_VALUES = 20_000
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "timestamp", "merge"))
_NULL = "tag:yaml.org,2002:null"


def field_name(path: Iterable[str | int]) -> str:
    """``services.web.depends_on[0]``"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


@dataclass(kw_only=True)
class Document:
    """The values of a file with the places of keys and values by field name; lines and columns count from 1."""

    file: str
    value: Value = None
    keys: dict[str, Place] = field(default_factory=dict)
    values: dict[str, Place] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, problem: Problem, *, at_key: bool = False) -> Fault:
        """``problem`` with the place of its field, or of the nearest thing around it that was written."""
        name = problem.field or ""
        if at_key and name in self.keys:
            return Fault(self.file, *self.keys[name], problem)
        while name:
            if place := self.values.get(name) or self.keys.get(name):
                return Fault(self.file, *place, problem)
            name = name[: max(name.rfind("."), name.rfind("["), 0)]
        return Fault(self.file, *self.values.get("", (1, 1)), problem)


def read_document(content: bytes, *, file: str) -> Document:
    """The document in ``content``; raises :class:`ManifestError` when it is no YAML mapping."""
    document = Document(file=file)
    if len(content) > MAX_BYTES:
        raise ManifestError([Fault(file, 1, 1, invalid("file", f"it is larger than {MAX_BYTES} bytes"))])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise ManifestError([Fault(file, line, column, invalid("file", "it is not UTF-8 text"))]) from None
    root = _compose(text, file)
    if not isinstance(root, MappingNode):
        place = _place(root) if root is not None else (1, 1)
        raise ManifestError([Fault(file, *place, invalid("file", "it holds no mapping", "begin with 'name: ...'"))])
    _Reader(document).read(root)
    if document.faults:
        raise ManifestError(document.faults)
    return document


def _compose(text: str, file: str) -> Node | None:
    try:
        # yaml.compose with the safe loader builds nodes only.
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        words = ", ".join(part for part in (error.context, error.problem) if part)
        remedy = "indent with spaces" if "\\t" in words else "check indentation, colons and quotes here"
        raise ManifestError([Fault(file, *place, invalid("file", f"not YAML: {words}", remedy))]) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = (before.count("\n") + 1, error.position - before.rfind("\n"))
        problem = invalid("file", "not YAML: a character that may not stand in it", "remove it")
        raise ManifestError([Fault(file, *place, problem)]) from None
    except RecursionError:
        raise ManifestError([Fault(file, 1, 1, invalid("file", "it is nested too deeply"))]) from None


def _place(node: Node) -> Place:
    return node.start_mark.line + 1, node.start_mark.column + 1


class _Reader:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._left = _MAX_VALUES

    def read(self, root: MappingNode) -> None:
        try:
            self._document.value = self._value(root, ())
        except RecursionError:
            self._fault((), root, "it refers to itself, or is nested too deeply", "write it out")

    def _fault(self, path: Path, node: Node, message: str, remedy: str) -> None:
        problem = invalid(field_name(path) or "file", message, remedy)
        self._document.faults.append(Fault(self._document.file, *_place(node), problem))

    def _value(self, node: Node, path: Path) -> Value:
        self._left -= 1
        if self._left < 0:
            if self._left == -1:
                self._fault(path, node, f"more than {_MAX_VALUES} values", "use fewer aliases")
            return None
        self._document.values[field_name(path)] = _place(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [self._value(each, (*path, number)) for number, each in enumerate(node.value)]
        if isinstance(node, ScalarNode) and node.tag == _NULL:
            return None
        if isinstance(node, ScalarNode) and node.tag in _PLAIN_TAGS:
            return str(node.value)
        self._fault(path, node, f"the tag {node.tag!r} is not understood", "remove it")
        return None

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._fault(path, key, "a key must be plain text", "write 'key: value'")
                continue
            name = str(key.value)
            here = (*path, name)
            if name in found:
                first = self._document.keys[field_name(here)][0]
                self._fault(here, key, f"the key is there twice, first on line {first}", "keep one of them")
                continue
            self._document.keys[field_name(here)] = _place(key)
            found[name] = self._value(value, here)
        return found
