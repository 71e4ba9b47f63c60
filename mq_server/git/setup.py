"""What git is told in one clone, so that it shows mailboxes readably, merges them by message and checks them.

    git config --local        diff.mailbox.*, merge.mailbox.*: how to call mq; shared by all work trees of the clone
    .git/info/attributes      the production's *.jsonl are merged by that driver; outranks the tracked merge=union
    hooks/pre-commit          `mq check`, if a commit changes the production

None of this travels with the repository, for git runs no program that a repository names: without it, diffs show JSON
and merges are a union of lines, which loses nothing.

Each thing is set, found as it should be, or left alone because somebody else made it, and all of that is told. What is
ours is known by its name of this program (`-m mq_server`) or stands between two marked lines, so that `undo` takes away
what was added and nothing else. Several productions of one repository share the settings.

Git gives commands to its own sh, on Windows too, so they are quoted for a POSIX shell. `-P` keeps Python from
importing modules out of the work tree it is called in.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from mq_server import __version__
from mq_server.repository import Repository

_MODULE = "-P -m mq_server"
_BEGIN, _END = "# >>> mq git-setup", "# <<< mq git-setup"
_CACHE = "refs/notes/textconv/mailbox"
_SHEBANG = "#!/bin/sh"
_CHECK = "check "
DIFF, MERGE = "diff.mailbox", "merge.mailbox"
ATTRIBUTES, HOOK = "info/attributes", "hooks/pre-commit"
SET, KEPT, LEFT, REMOVED = "set", "kept", "left", "removed"
COMMITTING = "MQ_COMMIT"
"""Set in the environment of hooks while `mq commit` commits, which checks for itself what it commits."""


class Step(NamedTuple):
    """What became of one thing.

    `state` is `set`, `kept` (it was so already), `removed`, or `left`: somebody else made it, and `advice` says what to
    do about it.
    """

    state: str
    what: str
    advice: str = ""


def set_up(repository: Repository, interpreter: str = sys.executable) -> list[Step]:
    """Tell the clone of mailboxes. Doing it again changes nothing, but for what an update or a move made out of date.

    Args:
        repository: Where the production lies.
        interpreter: The Python that has mq.

    Raises:
        GitError: Git refused.
        OSError: A file could not be written.
    """
    python = shlex.quote(PurePath(interpreter).as_posix())
    return [
        *_settings_set(repository, python),
        *_attributes_set(repository),
        *_hook_set(repository, python),
    ]


def undo(repository: Repository) -> list[Step]:
    """Take away what `set_up` added; the settings only if no other production of the clone needs them.

    Args:
        repository: Where the production lies.

    Raises:
        GitError: Git refused.
        OSError: A file could not be written.
    """
    attributes = _attributes(repository)
    others = [line for line in attributes.lines if line != _attributes_line(repository)]
    steps = [*attributes.write(others), *_hook_removed(repository)]
    return steps if others else [*steps, *_settings_removed(repository)]


# --- settings ---------------------------------------------------------------------------------------------------------


def _settings(python: str) -> dict[str, dict[str, str]]:
    in_driver = python.replace("%", "%%")
    return {
        DIFF: {
            # Git forgets the texts it has cached when the command changes, so an update of mq changes it.
            "textconv": f"{python} {_MODULE} textconv --by {__version__}",
            "cachetextconv": "true",
        },
        MERGE: {
            "driver": f"{in_driver} {_MODULE} merge-driver %O %A %B %L %P",
            "name": "mailboxes and receipts, message by message",
        },
    }


def _settings_set(repository: Repository, python: str) -> Iterator[Step]:
    for section, settings in _settings(python).items():
        if _is_theirs(repository, section):
            yield Step(LEFT, section, f"it is set to something else; `git config --get-regexp {section}` shows it")
            continue
        wrong = {key: value for key, value in settings.items() if _value(repository, f"{section}.{key}") != value}
        for key, value in wrong.items():
            repository.git("config", "--local", "--replace-all", f"{section}.{key}", value)
        yield Step(SET if wrong else KEPT, section)


def _settings_removed(repository: Repository) -> Iterator[Step]:
    for section, settings in _settings("").items():
        present = [key for key in settings if _value(repository, f"{section}.{key}") is not None]
        if present and not _is_theirs(repository, section):
            for key in present:
                repository.git("config", "--local", "--unset-all", f"{section}.{key}")
            yield Step(REMOVED, section)
    if repository.git("for-each-ref", _CACHE):
        repository.git("update-ref", "-d", _CACHE)
        yield Step(REMOVED, _CACHE)


def _is_theirs(repository: Repository, section: str) -> bool:
    """Whether somebody else has settled how mailboxes are shown or merged."""
    value = _value(repository, f"{section}.{'textconv' if section == DIFF else 'driver'}")
    return value is not None and _MODULE not in value


def _value(repository: Repository, key: str) -> str | None:
    found = repository.git("config", "--local", "--null", "--get-all", key, codes=(0, 1)).decode("utf-8", "replace")
    return found[:-1] if found else None


# --- attributes -------------------------------------------------------------------------------------------------------


def _attributes(repository: Repository) -> _Marked:
    return _Marked(_file(repository, ATTRIBUTES))


def _attributes_set(repository: Repository) -> list[Step]:
    attributes = _attributes(repository)
    return attributes.write(sorted({*attributes.lines, _attributes_line(repository)}))


def _attributes_line(repository: Repository) -> str:
    """The attribute of all mailboxes, receipts and archives of the production, wherever in the repository it lies."""
    if repository.prefix == PurePosixPath():
        return "*.jsonl merge=mailbox"
    folder = "".join(f"\\{sign}" if sign in "\\*?[" else sign for sign in repository.prefix.as_posix())
    pattern = f"/{folder}/**/*.jsonl"
    quoted = pattern.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" merge=mailbox' if set(pattern) & set(' "\\\t') else f"{pattern} merge=mailbox"


# --- hook -------------------------------------------------------------------------------------------------------------


def _hook_set(repository: Repository, python: str) -> list[Step]:
    hook = _Marked(_file(repository, HOOK))
    by_hand = f"{python} {_MODULE} --root {shlex.quote(f'./{repository.prefix}')} check || exit 1"
    if hook.exists and not hook.lines:
        if "-m mq_server" in hook.before:
            return [Step(KEPT, str(hook.path))]
        return [Step(LEFT, str(hook.path), f"it is not ours; to check the mailboxes too, add to it: {by_hand}")]
    if _is_shared(repository):
        advice = f"core.hooksPath names a folder of other repositories too; to check the mailboxes: {by_hand}"
        return [Step(LEFT, str(hook.path), advice)]
    return hook.write([*_hook_head(python), *sorted({*_checks(hook), _check(repository)})], first=_SHEBANG)


def _hook_removed(repository: Repository) -> list[Step]:
    hook = _Marked(_file(repository, HOOK))
    others = [line for line in _checks(hook) if line != _check(repository)]
    head = [line for line in hook.lines if not line.startswith(_CHECK)]
    return hook.write([*head, *others] if others else [])


def _checks(hook: _Marked) -> list[str]:
    return [line for line in hook.lines if line.startswith(_CHECK)]


def _check(repository: Repository) -> str:
    return f"{_CHECK}{shlex.quote(str(repository.prefix))}"


def _hook_head(python: str) -> list[str]:
    """What stands before the productions. A commit elsewhere, or without the Python that has mq, is let pass."""
    return f"""\
# Checks the mailboxes that are about to be committed. `mq git-setup --undo` takes this away.
python={python}
check() {{
    [ -n "${COMMITTING}" ] && return
    git diff --cached --quiet -- ":(top,literal)$1" && return
    [ -d "$1" ] || return 0
    [ -x "$python" ] || {{ echo "mq: there is no $python any more: run mq git-setup again" >&2; return 0; }}
    "$python" {_MODULE} --root "./$1" check && return
    echo "mq: nothing is committed; git commit --no-verify commits all the same" >&2
    exit 1
}}""".splitlines()


def _is_shared(repository: Repository) -> bool:
    """Whether hooks stand in a folder that is set for more than this repository."""
    found = repository.git("config", "--show-scope", "--get", "core.hooksPath", codes=(0, 1))
    return bool(found) and found.split(b"\t")[0] not in (b"local", b"worktree")


# --- files ------------------------------------------------------------------------------------------------------------


def _file(repository: Repository, name: str) -> Path:
    """A file of the clone, wherever git has it: a work tree of its own has its git folder elsewhere."""
    return repository.top / repository.git("rev-parse", "--git-path", name).decode("utf-8").rstrip("\n")


class _Marked:
    """Our lines in a file that others write to as well.

    Args:
        path: The file, which need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exists = path.exists()
        text = path.read_bytes().decode("utf-8", "surrogateescape") if self.exists else ""
        before, _, rest = text.partition(f"{_BEGIN}\n")
        ours, _, after = rest.partition(f"{_END}\n")
        self.before: str = before
        self.lines: list[str] = ours.splitlines()
        self._after: str = after

    def write(self, lines: Sequence[str], first: str = "") -> list[Step]:
        """Have these lines stand there. A file that holds nothing else any more goes.

        Args:
            lines: None takes the marks away, too.
            first: The first line of a new file, which makes it a program.
        """
        if list(lines) == self.lines:
            return [Step(KEPT, str(self.path))] if lines else []
        before = self.before or (f"{first}\n" if first else "")
        if before and not before.endswith("\n"):
            before += "\n"
        marked = "".join(f"{line}\n" for line in (_BEGIN, *lines, _END)) if lines else ""
        if not marked and (before + self._after).strip() in ("", _SHEBANG):
            self.path.unlink()
            return [Step(REMOVED, str(self.path))]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        partial.write_bytes(f"{before}{marked}{self._after}".encode("utf-8", "surrogateescape"))
        if self.exists:
            shutil.copymode(self.path, partial)
        if first:
            partial.chmod(partial.stat().st_mode | 0o111)
        partial.replace(self.path)
        return [Step(SET if lines else REMOVED, str(self.path))]
