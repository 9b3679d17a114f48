"""A home of the version before: it is upgraded at the next start, and everything in it is there and works."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import tarfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from hub.client import Client, load_context
from hub.client.readiness import sites_ready
from hub.stack.embedded import EmbeddedStack
from hub.stack.errors import StackError
from hub.stack.files import write_json
from hub.stack.layout import HomeLayout
from hub.stack.upgrade import LAYOUT, check_postgres, read_record, upgrade
from tests.upgrade.make_home import BROKERS, PARTS, PLACE

ARCHIVE = Path(__file__).parent / "home-0.1.0.tar.xz"
OPERATION_SECONDS = 200.0


def unpack(home: Path) -> Path:
    home.mkdir(mode=0o700)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(home, filter="tar")
    return home


@pytest.fixture
def old_home(tmp_path: Path) -> Path:
    """A home as 0.1.0 left it, to look at."""
    return unpack(tmp_path / "home")


@pytest.fixture
def home_in_its_place() -> Iterator[Path]:
    """A home as 0.1.0 left it, where it was made, so that it can run."""
    with PLACE.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(PLACE, ignore_errors=True)
        yield unpack(PLACE)
        shutil.rmtree(PLACE)


@asynccontextmanager
async def started(home: Path) -> AsyncIterator[tuple[EmbeddedStack, Client]]:
    async with AsyncExitStack() as around:
        stack = await around.enter_async_context(EmbeddedStack(home, sites=("north",), parts=PARTS))
        client = await around.enter_async_context(await Client.connect(load_context(home)))
        await sites_ready(client, sites=("north",), brokers=BROKERS, timeout_seconds=120)
        yield stack, client


def read(url: str | None) -> bytes:
    assert url is not None
    with urlopen(url, timeout=60) as answer:
        content: bytes = answer.read()
        return content


def write(url: str | None, text: bytes) -> None:
    assert url is not None
    urlopen(Request(url, data=text, method="POST"), timeout=60).close()


@pytest.mark.stack
async def test_a_home_of_0_1_0_is_upgraded_with_its_apps_images_and_data(home_in_its_place: Path) -> None:
    async with started(home_in_its_place) as (stack, client):
        assert stack.upgraded is not None
        assert stack.upgraded.before == "0.1.0"
        assert {app.name: app.state for app in await client.apps(all=True)} == {"kept": "stopped", "gone": "deleted"}
        [image] = await client.images()
        assert (image.name, image.tags, image.comment, image.level) == ("before", ("old",), "made by 0.1.0", "paused")
        run = await client.run("before", name="again", site="north")
        start = await client.start("kept")
        for each in (run, start):
            assert each.operation is not None
            await client.wait(each.operation, timeout=OPERATION_SECONDS)
        assert await asyncio.to_thread(read, (await client.app("again")).url) == b"before the image\n"
        kept = (await client.app("kept")).url
        assert await asyncio.to_thread(read, kept) == b"before the image\nafter the image\n"
        await asyncio.to_thread(write, f"{kept}/third", b"of today\n")
        save = await client.save("kept", name="after")
        assert save.operation is not None
        await client.wait(save.operation, timeout=OPERATION_SECONDS)
        delete = await client.delete_image("before")
        assert delete.operation is not None
        await client.wait(delete.operation, timeout=OPERATION_SECONDS)
    record = read_record(HomeLayout(home_in_its_place))
    assert record is not None
    assert record.layout == LAYOUT
    assert [each.before for each in record.upgrades] == ["0.1.0"]


def test_the_second_start_upgrades_nothing(old_home: Path) -> None:
    layout = HomeLayout(old_home)
    assert upgrade(layout, version="0.2.0") is not None
    assert upgrade(layout, version="0.2.0") is None


def test_a_home_of_a_newer_version_is_left_as_it_is(old_home: Path) -> None:
    layout = HomeLayout(old_home)
    write_json(layout.record, {"layout": LAYOUT + 1, "version": "9.0.0", "upgrades": []})
    before = {path: path.stat().st_mtime_ns for path in old_home.rglob("*")}
    with pytest.raises(StackError, match=r"9\.0\.0.*install"):
        upgrade(layout, version="0.2.0")
    assert {path: path.stat().st_mtime_ns for path in old_home.rglob("*")} == before


def test_a_damaged_record_is_told_with_its_file(old_home: Path) -> None:
    layout = HomeLayout(old_home)
    layout.record.write_text('{"layout": "two"')
    with pytest.raises(StackError, match=r"home\.json can't be read"):
        upgrade(layout, version="0.2.0")


def test_a_new_home_says_who_made_it(tmp_path: Path) -> None:
    layout = HomeLayout(tmp_path)
    assert upgrade(layout, version="0.2.0") is None
    record = read_record(layout)
    assert record is not None
    assert (record.layout, record.version, record.upgrades) == (LAYOUT, "0.2.0", ())


def test_a_cluster_of_another_postgres_is_not_started(tmp_path: Path) -> None:
    check_postgres(tmp_path, programs="18")
    (tmp_path / "PG_VERSION").write_text("17\n")
    with pytest.raises(StackError, match=r"PostgreSQL 17.*are of 18"):
        check_postgres(tmp_path, programs="18")
    (tmp_path / "PG_VERSION").write_text("18\n")
    check_postgres(tmp_path, programs="18")
