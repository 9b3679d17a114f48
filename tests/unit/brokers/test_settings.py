"""A broker's settings: what is wrong is said in one line that names the field, and no value."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from brokers.sdk.settings import BrokerSettings, SettingsError, load_settings
from bus.loglines import JsonLines, TextLines

GOOD: dict[str, Any] = {
    "bus": {"servers": ["nats://127.0.0.1:4222"]},
    "site": "north",
    "kind": "dsb",
    "name": "postgres",
    "state_dir": "state",
}


def write(tmp_path: Path, settings: object) -> Path:
    path = tmp_path / "config.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return path


def test_good_settings_are_read_from_the_named_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALQUE_CONFIG", str(write(tmp_path, GOOD)))
    settings = load_settings(BrokerSettings)
    assert (settings.site, settings.state_dir) == ("north", Path("state"))


def test_no_file_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALQUE_CONFIG", raising=False)
    with pytest.raises(SettingsError, match="CALQUE_CONFIG is not set"):
        load_settings(BrokerSettings)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bus": {"servers": []}}, "bus.servers: "),
        ({"site": "hub"}, "site: .*reserved"),
        ({"name": "No Name"}, "name: .*not a name"),
        ({"kind": "xyz"}, "kind: "),
        ({"surprise": "tell-no-one"}, "surprise: "),
        ({"state_dir": None}, "state_dir: "),
    ],
)
def test_a_broken_field_is_named(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    path = write(tmp_path, {**GOOD, **change})
    with pytest.raises(SettingsError, match=expected) as failed:
        load_settings(BrokerSettings, path=path)
    text = str(failed.value)
    assert str(path) in text
    assert "\n" not in text
    assert "tell-no-one" not in text


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        load_settings(BrokerSettings, path=write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(BrokerSettings, path=tmp_path / "none.json")


def test_a_log_record_is_one_line_tracebacks_included() -> None:

    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "p", 1, "failed\nbadly", None, sys.exc_info())
    assert "\n" not in TextLines().format(record)
    assert "\n" not in JsonLines(process="p", site="s").format(record)
