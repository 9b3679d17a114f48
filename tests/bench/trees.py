"""A tree as a benchmark copies it, and fresh file systems to restore one onto."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

FILES_PER_FOLDER = 50
LEAST_BYTES = 64
MOST_BYTES = 16 << 20
MOUNT_SECONDS = 60.0
# Skewed, so that it compresses to about half: what is neither text nor noise
_LETTERS = bytes(b" etaoinshrdlu"[min(at % 37 % 13, at % 13)] if at % 3 else 97 + at % 26 for at in range(256))


def sizes_of(*, files: int, size: int, seed: int) -> list[int]:
    """How many bytes each of ``files`` has: many small ones, few big ones, ``size`` together."""
    chance = random.Random(seed)
    drawn = [chance.lognormvariate(0.0, 1.6) for _ in range(files)]
    unit = size / sum(drawn)
    return [max(LEAST_BYTES, min(MOST_BYTES, int(each * unit))) for each in drawn]


def content(size: int, chance: random.Random) -> bytes:
    """Bytes that no other file has; two thirds of all files compress."""
    noise = chance.randbytes(size)
    return noise.translate(_LETTERS) if chance.random() < 2 / 3 else noise


def make(tree: Path, *, files: int, size: int) -> None:
    """Fill a tree."""
    chance = random.Random(1)
    for at, each in enumerate(sizes_of(files=files, size=size, seed=2)):
        file = path_of(tree, at)
        if at % FILES_PER_FOLDER == 0:
            file.parent.mkdir(parents=True)
        file.write_bytes(content(each, chance))


def change(tree: Path, *, files: int, share: float, seed: int) -> int:
    """Give ``share`` of the files new bytes; how many bytes those are."""
    chance = random.Random(seed)
    written = 0
    for at in chance.sample(range(files), max(1, int(files * share))):
        file = path_of(tree, at)
        new = content(file.stat().st_size, chance)
        file.write_bytes(new)
        written += len(new)
    return written


def path_of(tree: Path, at: int) -> Path:
    """Where the file with this number is."""
    folder = at // FILES_PER_FOLDER
    return tree / f"{folder % 20:02}" / f"{folder:04}" / f"file-{at:06}.bin"


def bytes_below(directory: Path) -> int:
    """What the files below take, by their sizes."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def can_mount(kind: str) -> bool:
    """Whether a file system of this kind can be made and mounted here."""
    return os.geteuid() == 0 and shutil.which(f"mkfs.{kind}") is not None and Path("/dev/loop-control").exists()


@contextmanager
def fresh_filesystem(kind: str, *, size: int, directory: Path) -> Iterator[Path]:
    """A new file system in a file below ``directory``, mounted; unmounted and removed afterwards."""
    with TemporaryDirectory(dir=directory) as place:
        image, target = Path(place) / "image", Path(place) / "mounted"
        target.mkdir()
        with image.open("wb") as file:
            file.truncate(size)
        _run(f"mkfs.{kind}", *({"xfs": ["-q"], "btrfs": ["-q"], "ext4": ["-q", "-F"]}[kind]), str(image))
        _run("mount", "-o", "loop", str(image), str(target))
        try:
            yield target
        finally:
            _run("umount", str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=MOUNT_SECONDS)
