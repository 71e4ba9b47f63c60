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
        ("durability = \n\n", "1: not valid TOML: Invalid value"),
        ("\ndurability = \nmax_unread = 1", "2: not valid TOML: Invalid value"),
        ("\n# x\r\ndurability", "3: not valid TOML: Expected '=' after a key"),
        ('durability = "ram"', "1: durability: must be 'disk' or 'os'"),
        ("max_message_bytes = 10", "1: max_message_bytes: must be at least 1,024"),
        ("\n\nmax_message_bytes = 9999999", "3: max_message_bytes: must be at most 1,048,576"),
        ("lock_timeout_s = 0", "1: lock_timeout_s: must be more than 0"),
        ("durabilty = 1", "1: durabilty: there is no such key. Did you mean 'durability'? Known keys: durability, "),
        ("lock_timeout_s = nan", "1: lock_timeout_s: must be more than 0"),
        ("lock_timeout_s = '2'", "1: lock_timeout_s: must be a number"),
        ("max_unread = 2.5", "1: max_unread: must be a whole number"),
        ("max_unread = true", "1: max_unread: must be a whole number"),
        ("strict_types = 1", "1: strict_types: must be true or false"),
        ("durability = []", "1: durability: must be 'disk' or 'os'"),
        ("zzz = 1", "1: zzz: there is no such key. Known keys: durability, "),
        ('[channels]\nNarrator = "x"', "2: channels: channel 'Narrator' is not a valid name"),
        ('[channels]\nnul = "x"', "2: channels: channel 'nul' is a device on Windows"),
        ("[channels]\na = { colour = 1 }", "2: channels.a.colour: there is no such key. Known keys: description, "),
        ("[channels.a]\n\ncolour = 1", "3: channels.a.colour: there is no such key"),
        ('[channels]\n"a".colour = 1', "2: channels.a.colour: there is no such key"),
        ('channels = {"a" = {"b" = 1}}', "1: channels.a.b: there is no such key"),
        ("[channels]\na = 7", "2: channels.a: must be a text or a table"),
        ("[channels]\na.max_unread = -1", "2: channels.a.max_unread: must be at least 0"),
        ("channels = 7", "1: channels: must be a table"),
        ('[channels]\na = """\nb = 1\\"""\n""""\nB = "x"', "5: channels: channel 'B' is not a valid name"),
        ("[channels.a] # ]'\ndescription = '''\n'b'=['''\ngroup = 7", "4: channels.a.group: "),
        ("x = [\n{ y = 1 }, # ]\n'z = 2']\n\nlock_timeout_s = 0", "5: lock_timeout_s: "),
        ("[[x]]\na = 2026-01-01T00:00:00Z\n[[x]]\n[x.y]\nz=1", "1: x: there is no such key"),
        ('[channels]\r\na = "x"\r\nB = "x"\r\n', "3: channels: channel 'B'"),
    ],
)
def test_a_wrong_file_says_what_is_wrong_and_where(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert f"{tmp_path / 'mq.toml'}:{words}" in str(caught.value)


def test_every_fault_is_named_in_the_order_of_the_lines(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, 'lock_timeout_s = -1\ndurability = "ram"\n[channels]\nBad = "x"\na.colour = 1\n')
    places = ("1: lock_timeout_s: ", "2: durability: ", "4: channels: channel 'Bad'", "5: channels.a.colour: ")
    found = [str(caught.value).index(f"{tmp_path / 'mq.toml'}:{place}") for place in places]
    assert found == sorted(found)


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path) -> None:
    write(tmp_path / "mq.toml", b'\ndurability = "\xff"')
    with pytest.raises(ConfigError, match=r"mq\.toml:2: not valid TOML: its text is not UTF-8"):
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
