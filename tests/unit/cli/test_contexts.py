"""Which hub is meant: flags, environment, the current context, the default home; and the file of contexts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.client import ConflictError, InvalidError, NotFoundError
from hub.client.contexts import Contexts, NamedContext, added, choose, load_contexts, removed, save_contexts, used
from tests.unit.cli.test_commands import calque, execute_here

REMOTE = NamedContext(servers=("nats://hub.example:4222",), principal="ci", nkey_seed_file="/keys/ci")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    known = Contexts(current="prod", contexts={"prod": REMOTE, "lab": NamedContext(home="/srv/lab")})
    save_contexts(tmp_path / "calque" / "contexts.json", known)
    return tmp_path / "calque" / "contexts.json"


def test_flags_go_before_the_environment_and_that_before_the_current_context(file: Path) -> None:
    everything = {"CALQUE_CONTEXT": "lab", "CALQUE_HOME": "/env", "XDG_DATA_HOME": "/data"}
    home_only = {"CALQUE_HOME": "/env", "XDG_DATA_HOME": "/data"}
    nothing = {"XDG_DATA_HOME": "/data"}
    assert choose(context="prod", environment=everything, file=file) == ("prod", REMOTE, "--context")
    assert choose(home="/flag", environment=everything, file=file)[1:] == (NamedContext(home="/flag"), "--home")
    assert choose(environment=everything, file=file) == ("lab", NamedContext(home="/srv/lab"), "CALQUE_CONTEXT")
    assert choose(environment=home_only, file=file)[1:] == (NamedContext(home="/env"), "CALQUE_HOME")
    assert choose(environment=nothing, file=file) == ("prod", REMOTE, "the current context")
    none = choose(environment=nothing, file=file.with_name("none"))
    assert (none.home, none.why) == (Path("/data/calque"), "the default home")


def test_a_context_is_added_once_used_and_removed(file: Path) -> None:
    known = load_contexts(file)
    assert added(known, "prod", REMOTE) == known
    with pytest.raises(ConflictError, match="--replace"):
        added(known, "prod", NamedContext(home="/other"))
    assert added(known, "prod", NamedContext(home="/other"), replace=True).contexts["prod"].home == "/other"
    assert used(known, "lab").current == "lab"
    assert removed(known, "prod") == Contexts(current=None, contexts={"lab": NamedContext(home="/srv/lab")})
    with pytest.raises(NotFoundError, match="lab, prod"):
        used(known, "nothing")
    assert added(Contexts(), "first", REMOTE).current == "first"


def test_a_damaged_file_is_named(file: Path) -> None:
    file.write_text('{"contexts": 3}')
    with pytest.raises(InvalidError, match=r"contexts\.json: it is damaged"):
        load_contexts(file)


async def test_the_commands_keep_it_and_say_which_won(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("CALQUE_HOME", raising=False)
    monkeypatch.delenv("CALQUE_CONTEXT", raising=False)
    assert (await execute_here("context", "add", "prod", "--server", "nats://h:1")).code == 2
    remote = ("--server", "nats://h:1", "--principal", "ci")
    assert (await execute_here("context", "add", "prod", *remote)).code == 0
    assert (await execute_here("context", "add", "lab", "--home", str(tmp_path / "lab"))).code == 0
    assert (await execute_here("context", "add", "Bad_Name", "--home", "x")).code == 2
    assert (await execute_here("context", "list", "-o", "name")).out.split() == ["prod", "lab"]
    assert "decided by: the current context" in (await execute_here("context", "show")).out
    assert (await execute_here("context", "use", "lab")).code == 0
    assert str(tmp_path / "lab") in (await execute_here("context", "show")).out
    shown = await execute_here("context", "show", "--context", "prod", "-o", "name")
    assert shown.out == "prod\n"
    assert (await execute_here("context", "remove", "none")).code == 3
    assert (await execute_here("context", "remove", "lab")).code == 0
    both = await calque(tmp_path, "status", "--context", "prod")
    assert both.code == 2
    assert "--context and --home" in both.err
    remote_up = await execute_here("--context", "prod", "down")
    assert remote_up.code == 2
    assert "--home" in remote_up.err
