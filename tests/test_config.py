"""mq.toml: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from mq_server.config import Config, annotated_toml, load
from mq_server.errors import ConfigError
from mq_server.mailroom import Mailroom
from tests.support import write


def loaded(root: Path, text: str) -> Config:
    write(root / "mq.toml", text.encode())
    return load(root)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load(tmp_path) == load(tmp_path / "nowhere") == loaded(tmp_path, "\ufeff# nothing\n") == Config()
    assert (Config().durability, Config().max_message_bytes, Config().lock_timeout_s) == ("disk", 262_144, 10.0)


def test_every_setting_is_read(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        'durability = "os"\nmax_message_bytes = 4096\nlock_timeout_s = 2\n'
        '[channels]\nnarrator = "tells"\ndialogist = { description = "speaks", group = "craft" }\n',
    )
    assert (config.durability, config.max_message_bytes, config.lock_timeout_s) == ("os", 4096, 2.0)
    assert config.channels["narrator"].description == "tells"
    assert (config.channels["dialogist"].description, config.channels["dialogist"].group) == ("speaks", "craft")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("durability = ", "not valid TOML"),
        ('durability = "ram"', "durability: Input should be 'disk' or 'os'"),
        ("max_message_bytes = 10", "max_message_bytes: Input should be greater than or equal to 1024"),
        ("max_message_bytes = 9999999", "less than or equal to 1048576"),
        ("lock_timeout_s = 0", "lock_timeout_s: Input should be greater than 0"),
        ("durabilty = 1", "durabilty: there is no such key"),
        ('[channels]\nNarrator = "x"', "channels: channel 'Narrator' is not a valid name"),
        ('[channels]\nnul = "x"', "channels: channel 'nul' is a device on Windows"),
        ("[channels]\na = { colour = 1 }", "channels.a.colour: there is no such key"),
        ("[channels]\na = 7", "channels.a: "),
        ("channels = 7", "channels: "),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'mq.toml'}: ")
    assert words in str(caught.value)


def test_every_fault_is_named_and_the_known_keys_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'durability = "ram"\nlock_timeout_s = -1\n[channels]\nBad = "x"\n')
    for words in ("durability: ", "lock_timeout_s: ", "channel 'Bad'", "Known keys: durability, max_message_bytes"):
        assert words in str(caught.value)


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'durability = "\xff"')
    with pytest.raises(ConfigError, match="not valid TOML"):
        Mailroom(tmp_path)


def test_a_roster_may_hold_any_text(tmp_path: Path) -> None:
    roster = {"narrator": 'tells "it" \\ all', "dialogist": "ä\n\tö"}
    config = loaded(tmp_path, annotated_toml(roster, in_force=True))
    assert {name: entry.description for name, entry in config.channels.items()} == roster


def test_the_annotated_file_explains_every_setting_and_changes_none(tmp_path: Path) -> None:
    text = annotated_toml({"narrator": "tells"})
    assert tomllib.loads(text) == {}
    assert loaded(tmp_path, text) == Config()
    for setting in fields(Config):
        assert setting.name in text
    uncommented = [line[2:] for line in text.splitlines() if line.startswith("# ") and " = " in line]
    assert loaded(tmp_path, "\n".join(uncommented[:-1])) == Config()
