"""Volumes as services: provisioned, bound, described, removed, whatever comes twice."""

from __future__ import annotations

import os

import msgspec
import pytest

from schemas.brokers import (
    Bind,
    Bound,
    CopyGrant,
    DataServiceHealth,
    DsbInfo,
    Health,
    InfoRequest,
    PrepareCopy,
    Prepared,
)
from schemas.ids import new_id
from schemas.secrets import Secret
from tests.integration.broker_process import eventually
from tests.integration.filesystem.site import Site
from tests.integration.volume.services import LABELS, Volume


async def test_it_says_what_it_offers(broker: Volume) -> None:
    info = await broker.ask("info", InfoRequest(), DsbInfo)
    assert (info.types, info.attributes, info.secret_attributes) == (("volume",), ("path",), ())
    assert (info.copy_formats, [plan.name for plan in info.plans]) == (("volume-tree",), ["small"])


async def test_a_volume_is_an_empty_directory_of_its_own(broker: Volume) -> None:
    one, two = await broker.tree("own-1"), await broker.tree("own-2")
    assert one.is_absolute()
    assert one != two
    assert list(one.iterdir()) == []
    (one / "file").write_bytes(b"1")
    assert list(two.iterdir()) == []
    assert await broker.tree("own-1") == one
    assert (one / "file").read_bytes() == b"1", "provisioned again, it is what it was"


async def test_a_binding_is_the_path_and_no_secret(broker: Volume) -> None:
    tree = await broker.tree("bound")
    first, again = await broker.bind("bound"), await broker.bind("bound", binding="b2")
    assert first == again == Bound(attributes={"path": str(tree)}, secrets={})
    await broker.unbind("bound")
    await broker.unbind("bound", binding="never heard of")
    assert tree.is_dir()


async def test_what_is_not_there_is_said_so(broker: Volume) -> None:
    bind = Bind(id=new_id(), service_id="nobody", binding_id="b1", secret=Secret(value="x"))
    assert (await broker.refuses("bind", bind, Bound)).code == "not_found"
    prepare = PrepareCopy(id=new_id(), service_id="nobody", copy="copy-nobody")
    assert (await broker.refuses("prepare_copy", prepare, Prepared)).code == "not_found"
    assert not (await broker.ask("health", DataServiceHealth(service_id="nobody"), Health)).healthy
    await broker.deprovision("nobody")


async def test_a_volume_is_known_by_the_labels_beside_it(broker: Volume) -> None:
    tree = await broker.tree("known")
    (found,) = await broker.describe("known")
    assert (found.id, found.kind, found.name) == ("known", "directory", tree.name)
    assert found.labels == {**LABELS, "service_id": "known"}
    assert found in await broker.describe()
    assert (await broker.ask("health", DataServiceHealth(service_id="known"), Health)).healthy
    assert (await broker.ask("health", DataServiceHealth(), Health)).healthy
    await broker.deprovision("known")
    assert await broker.describe("known") == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [("type", "database"), ("plan", "huge"), ("parameters", {"size": "1"}), ("copy_format", "s3-objects")],
)
async def test_what_it_can_not_make_is_refused_by_field(broker: Volume, field: str, value: object) -> None:
    grant = CopyGrant(
        copy="c",
        purpose="read",
        url="https://127.0.0.1:1",
        token=Secret(value="t"),
        fingerprint="",
        ca="",
        expires_at="",
    )
    request = broker.provision_request("refused", restore=grant if field == "copy_format" else None)
    problem = await broker.fails("provision", msgspec.structs.replace(request, **{field: value}))
    assert (problem.code, problem.field) == ("invalid", field)
    assert await broker.describe("refused") == ()


async def test_whatever_is_in_a_tree_is_removed_with_it(broker: Volume) -> None:
    tree, before = await broker.tree("removed"), broker.leftovers()
    outside = broker.directory / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (tree / "link out").symlink_to(outside)
    for name in (b"\xff", b"new\nline", b"-rf", b"n" * 255):
        odd = tree / os.fsdecode(name)
        odd.mkdir()
        (odd / "file").touch()
        (odd / "file").chmod(0)
        odd.chmod(0)
    os.mkfifo(tree / "pipe")
    directory = os.open(tree, os.O_RDONLY)
    for _ in range(600):  # a path much longer than any call takes
        os.mkdir("deep" * 10, dir_fd=directory)
        below = os.open("deep" * 10, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    await broker.stage("removed", "copy-removed")
    await broker.prepare("removed", "copy-removed")
    tree.chmod(0o500)
    await broker.deprovision("removed")
    assert not tree.exists()
    assert (outside / "kept").exists()
    await eventually(lambda: broker.leftovers() <= before, seconds=10, what="nothing of it is left on the disk")


async def test_a_removal_that_was_cut_off_is_finished_after_the_start(own_broker: Volume) -> None:
    await own_broker.stop()
    left = own_broker.volumes / "trash" / "of a killed broker" / "0" / "below"
    left.mkdir(parents=True)
    (left / "file").touch()
    moment = own_broker.volumes / "moments" / ("0" * 32)
    moment.mkdir()
    (moment / "content").touch()
    await own_broker.start()
    await eventually(lambda: own_broker.leftovers() == set(), seconds=10, what="it is removed")


async def test_a_tree_with_paths_longer_than_any_call_takes_is_copied(broker: Volume, repository: Site) -> None:
    tree = await broker.tree("deep")
    directory = os.open(tree, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("deep" * 10, dir_fd=directory)
        below = os.open("deep" * 10, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=directory)
    os.write(file, b"down here")
    os.close(file)
    os.close(directory)
    restored = await broker.tree("deep-2", restore=await broker.save(repository, "deep", "copy-deep"))
    directory = os.open(restored, os.O_RDONLY)
    for _ in range(200):
        below = os.open("deep" * 10, os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    file = os.open("file", os.O_RDONLY, dir_fd=directory)
    os.close(directory)
    assert os.read(file, 100) == b"down here"
    os.close(file)
    await broker.deprovision("deep")
    await broker.deprovision("deep-2")
