"""A directory that was there before is bound and copied, and nothing of it changes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from schemas.brokers import (
    Attach,
    Attachable,
    Bind,
    Bound,
    Copied,
    CopyData,
    DataServiceHealth,
    Done,
    Existing,
    Health,
    PrepareCopy,
    Prepared,
    StageCopy,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import Volume
from tests.integration.volume.trees import look, nasty, same


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "production data"
    made.mkdir()
    nasty(made)
    return made


def existing(tree: Path) -> Existing:
    return Existing(url=tree.as_uri())


def attach(found: Existing, **more: Any) -> Attach:
    return Attach(**{"id": new_id(), "service_id": "existing", "type": "volume", "existing": found, **more})


async def save(broker: Volume, tree: Path, repository: Site, copy: str) -> None:
    named: dict[str, Any] = {"service_id": "existing", "copy": copy, "existing": existing(tree)}
    await broker.run("stage_copy", StageCopy(id=new_id(), **named), Done)
    prepared = await broker.ask("prepare_copy", PrepareCopy(id=new_id(), hold_seconds=60, **named), Prepared)
    assert prepared.level == "application"
    request = CopyData(id=new_id(), grant=repository.open_write(copy), **named)
    await broker.run("copy", request, Copied)
    repository.repository.commit(copy)
    await broker.discard(copy)


async def test_it_is_copied_whole_restored_as_a_new_one_and_stays_as_it_is(
    broker: Volume, repository: Site, tree: Path
) -> None:
    before, ours = look(tree), await broker.describe()
    assert (await broker.run("attach", attach(existing(tree)), Attachable)).resource == {"path": str(tree)}
    await save(broker, tree, repository, "copy-existing-tree")
    restored = await broker.tree("from-existing", restore=repository.open_read("copy-existing-tree"))
    same(tree, restored)
    await broker.deprovision("from-existing")
    await broker.unbind("existing")
    await broker.deprovision("existing")
    assert look(tree) == before
    assert await broker.describe() == ours


async def test_a_binding_is_the_path_that_the_user_gave(broker: Volume, tree: Path) -> None:
    request = Bind(
        id=new_id(), service_id="existing", binding_id="b", secret=Secret(value="unused"), existing=existing(tree)
    )
    assert (await broker.ask("bind", request, Bound)).attributes == {"path": str(tree)}


async def test_what_can_t_be_attached_says_why(broker: Volume, tree: Path) -> None:
    missing = await broker.fails("attach", attach(existing(tree / "missing")))
    assert (missing.code, missing.field) == ("not_found", "attach")
    for url in ("file://elsewhere/srv", "http:///srv", "file:///", "file:///srv/../etc", "file:///srv?x=1"):
        assert (await broker.fails("attach", attach(Existing(url=url)))).code == "invalid", url
    own = await broker.fails("attach", attach(existing(broker.volumes)))
    above = await broker.fails("attach", attach(existing(broker.volumes.parent)))
    assert own.message == above.message == "the broker's own volumes lie there"
    link = tree.parent / "link"
    link.symlink_to(broker.volumes)
    assert (await broker.fails("attach", attach(existing(link)))).message == own.message
    if os.geteuid() != 0:
        tree.chmod(0)
        assert (await broker.fails("attach", attach(existing(tree)))).code == "not_permitted"
        tree.chmod(0o700)


async def test_health_is_that_of_the_directory(broker: Volume, tree: Path) -> None:
    there = DataServiceHealth(service_id="existing", existing=existing(tree))
    assert (await broker.ask("health", there, Health)).healthy
    gone = DataServiceHealth(service_id="existing", existing=existing(tree / "gone"))
    assert not (await broker.ask("health", gone, Health)).healthy
