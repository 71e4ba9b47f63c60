"""What can go wrong, in two kinds.

Bad *stored data* is a `Problem`: a value that is collected and shown, never raised, so that one bad line stops nothing.
A failed *operation* is a `MailError`: each subclass builds its own sentence from what happened, where, and what to do.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Problem(NamedTuple):
    """One thing in the stored files that cannot be read as it should.

    `path` is relative to the production's folder and uses forward slashes; `line` counts from 1 as an editor does, and
    is 0 when the whole file is meant.
    """

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


class MailError(Exception):
    """An operation that was refused or failed; the text says what happened, where and what to do. Nothing was lost."""


class InvalidRequest(MailError):
    """A call whose arguments are wrong: every fault at once, and a corrected example where there is one."""

    def __init__(self, faults: Sequence[str], example: str = "") -> None:
        self.faults = tuple(faults)
        self.example = example
        text = "; ".join(self.faults)
        super().__init__(f"{text}. For example: {example}" if example else text)


class InvalidName(InvalidRequest):
    """A channel, reader or sender outside the grammar of names."""

    def __init__(self, what: str, name: object, why: str) -> None:
        super().__init__([f"{what} {name!r} {why}"])


class UnknownChannel(MailError):
    """A channel that is neither on the roster nor in the folder."""

    def __init__(self, name: str, known: Iterable[str], *, roster: bool = False) -> None:
        known = sorted(known)
        where = "on the roster of mq.toml" if roster else "in this production"
        near = did_you_mean(name, known)
        listing = f"Channels: {', '.join(known)}" if known else "There are no channels yet"
        super().__init__(f"There is no channel {name!r} {where}.{near} {listing}")


class UnknownScene(MailError):
    """A scene that no message bears."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        listing = f"Scenes: {', '.join(known)}" if known else "No message bears a scene yet"
        super().__init__(f"There is no scene {name!r} in this production.{did_you_mean(name, known)} {listing}")


class UnknownReader(MailError):
    """A reader that nothing is known of, whose name is almost a known one's."""

    def __init__(self, reader: str, channel: str, known: Iterable[str]) -> None:
        super().__init__(f"{channel} has no reader {reader!r}.{did_you_mean(reader, known)} Nothing was changed")


class NotSettled(MailError):
    """Messages that could not be settled, each with the reason. Nothing was changed."""

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))


class NoReply(MailError):
    """A question that nobody has answered in time. It stands, and the answer can still be waited for."""

    def __init__(self, message_id: str, timeout_s: float, go_on: str, meanwhile: str) -> None:
        self.message_id = message_id
        super().__init__(f"No reply to {message_id} within {timeout_s:g} s. {go_on} goes on waiting{meanwhile}")


class ReplyTooDeep(MailError):
    """A reply below more others than `max_reply_depth` allows."""

    def __init__(self, depth: int, limit: int, root: str) -> None:
        super().__init__(
            f"This would be answer number {depth} in a row below {root}, and max_reply_depth is {limit}. If you are "
            "going in circles, stop here; else sum up what is agreed and post it as a new message, without reply_to. "
            "Nothing was posted"
        )


class MailboxFull(MailError):
    """A recipient with more unread messages than `max_unread` allows."""

    def __init__(self, unread: dict[str, int], limits: dict[str, int]) -> None:
        full = ", ".join(f"{name} has {count:,} of at most {limits[name]:,}" for name, count in unread.items())
        super().__init__(
            f"Too much is unread: {full}. Wait until it has caught up, or correct an earlier message with replaces. "
            "Nothing was posted"
        )


class KeyTaken(MailError):
    """A `dedup_key` that its sender has used for a message to somebody else."""

    def __init__(self, key: str, ref: str, channels: Sequence[str], others: Sequence[str]) -> None:
        super().__init__(
            f"dedup_key {key!r} is that of {ref}, which went to {', '.join(channels)} and not to {', '.join(others)}. "
            "Use another key for another message. Nothing was posted"
        )


class UnknownReference(MailError):
    """A reference (id, end of an id, channel:line) that names no message."""

    def __init__(self, reference: str, hint: str = "") -> None:
        super().__init__(
            f"No message is named {reference!r}. {hint or 'Use an id or a ref from an earlier answer, or channel:line'}"
        )


class AmbiguousReference(MailError):
    """An end of an id that fits several messages."""

    def __init__(self, reference: str, candidates: Sequence[str]) -> None:
        shown = ", ".join(candidates[:5])
        super().__init__(f"{reference!r} fits {len(candidates)} messages; give more of the id. Candidates: {shown}")


class MessageTooLong(MailError):
    """A message whose line would exceed `max_message_bytes`."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"The message is {size_bytes:,} bytes as a line; the limit is {limit_bytes:,}. Shorten the "
            "payload, split it into several messages, or raise max_message_bytes in mq.toml. Nothing was posted"
        )


class LockTimeout(MailError):
    """A lock that another process held for longer than the caller would wait."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__(
            f"{path}: another process has held this lock for {timeout_s:g} s. Nothing was written; try again, "
            "or look for a git command under `mq git` or a stopped process that uses this folder"
        )


class WriteFailed(MailError):
    """The operating system refused a write; what was begun has been taken back."""

    def __init__(self, path: Path, cause: OSError, outcome: str = "Nothing was written") -> None:
        hint = {
            errno.ENOSPC: "free some space and post again",
            errno.EDQUOT: "your disk quota is used up; free some space and post again",
            errno.EFBIG: "the file has reached the size this process may write; raise the limit and post again",
            errno.EACCES: "make it writable for this user, and close programs that hold it open",
            errno.EPERM: "make it writable for this user, and close programs that hold it open",
            errno.EROFS: "the file system is read-only",
            errno.ENOTDIR: "a file stands where a folder is needed; move it away or choose another --root",
            errno.EISDIR: "a folder stands where a file is needed; move it away",
            errno.EINVAL: "something else stands where a file is needed; move it away",
            errno.EEXIST: "a file stands where a folder is needed; move it away or choose another --root",
        }.get(cause.errno or 0, "look at the disk and try again")
        super().__init__(f"{path}: {cause.strerror or cause}. {outcome}; {hint}")


class PartlyPosted(MailError):
    """A message for several mailboxes that reached some of them only."""

    def __init__(self, message_id: str, posted: Sequence[str], failed: str, cause: MailError) -> None:
        super().__init__(
            f"Posted to {', '.join(posted)} as {message_id}, but not to {failed} and what comes after it: {cause}. "
            "Once that is mended, the same call with its dedup_key completes it; without one, post it to the others"
        )


class FileVanished(MailError):
    """A mailbox that keeps being replaced under our hands."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: the file keeps changing while we write to it. The post was not confirmed; try again")


class ConfigError(MailError):
    """An mq.toml that cannot be used."""


class SchemaError(MailError):
    """A file in schemas/ that is no JSON Schema, so that no message of its type can be checked."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            f"{'; '.join(map(str, self.problems))}. No message of this type is posted until the file is mended; "
            "remove it to leave the type unchecked"
        )


class UnknownType(MailError):
    """A message type that has neither a model nor a schema, where its fields were asked for."""

    def __init__(self, msg_type: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"No fields are laid down for the message type {msg_type!r}.{did_you_mean(msg_type, known)} "
            f"Types that have some: {', '.join(known)}"
        )


class Unsteady(MailError):
    """Files that changed again and again while they were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"{root}: the files keep changing while they are read. Try again when that is over")


class Stale(Exception):
    """A file changed between looking at its index and reading its lines; look again. Never leaves the package."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        super().__init__(channel)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` with a space in front, or nothing when no known name is near."""
    near = _nearest(name.lower(), known, 0.7)
    return f" Did you mean {near!r}?" if near else ""


def near_miss(name: str, known: Iterable[str]) -> bool:
    """Whether a new name is so like a known one that it is rather a slip: `narator`, but not `agent_2` for `agent_1`.

    Names that differ in their numbers only are taken for what they are.
    """
    letters = re.sub(r"[0-9]+", "0", name)
    others = [other for other in known if re.sub(r"[0-9]+", "0", other) != letters]
    return bool(_nearest(name, others, 0.85))


def _nearest(name: str, known: Iterable[str], cutoff: float) -> str:
    """The known name that is most like `name`; empty if none is like it by `cutoff` (0 to 1)."""
    known = list(known)
    if not known:
        return ""
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, known, n=1, cutoff=cutoff)), "")
