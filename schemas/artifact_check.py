"""What must hold of an artifact. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.problems import Problem, invalid
from schemas.values import Artifact

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")


def check_artifact(artifact: Artifact, *, field: str) -> Iterator[Problem]:
    """What is wrong with ``artifact``, which stands in ``field``."""
    for number, word in enumerate(artifact.command):
        if "\0" in word:
            yield invalid(f"{field}.command[{number}]", "it holds a NUL character", "remove it")
    if artifact.type == "image":
        yield from _image(artifact, field=field)
    else:
        yield from _process(artifact, field=field)


def _image(artifact: Artifact, *, field: str) -> Iterator[Problem]:
    if not artifact.image:
        yield invalid(f"{field}.image", "an artifact of type image needs an image", "name it: registry/name:tag")
    elif not _IMAGE.fullmatch(artifact.image):
        yield invalid(f"{field}.image", f"{artifact.image!r} is no image's name", "write registry/name:tag")
    for other in ("directory", "wheel"):
        if getattr(artifact, other):
            yield invalid(f"{field}.{other}", f"an artifact of type image has no {other}", "remove it")


def _process(artifact: Artifact, *, field: str) -> Iterator[Problem]:
    if artifact.image:
        yield invalid(f"{field}.image", "an artifact of type process has no image", "remove it, or say type: image")
    if artifact.directory and artifact.wheel:
        yield invalid(field, "both directory and wheel are given", "keep one of them")
    elif not artifact.directory and not artifact.wheel:
        yield invalid(
            field, "an artifact of type process needs a directory or a wheel", f"give {field}.directory or .wheel"
        )
    if not artifact.command or not artifact.command[0]:
        yield invalid(f"{field}.command", "there is no command to run", "give it as a list: [python, -m, app]")
