"""Posting: who gets a message, what it inherits, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mq_server.board import SceneBoard
from mq_server.columns import Place
from mq_server.errors import (
    InvalidRequest,
    MailError,
    SchemaError,
    UnknownChannel,
    near_miss,
)
from mq_server.guarding import ALWAYS_ALLOWED
from mq_server.message import Draft, Unreadable, parse_line
from mq_server.names import as_names, check_name, parse_reference
from mq_server.outcomes import Posted
from mq_server.replying import Replying
from mq_server.vetting import checked_payload
from mq_server.writing import Writing

if TYPE_CHECKING:
    from pydantic import BaseModel

_YEAR_S = 366 * 86400
_JUDGEMENTS = ("score", "finalize", "feedback")
_VERSION = "scene"
_KEY_CHARACTERS = 200


class Named(NamedTuple):
    """What a post takes over from the message that it answers or judges."""

    id: str
    sender: str
    scene: str | None


class Posting(Writing, Replying, SceneBoard):
    """The part of the façade that posts."""

    async def post(
        self,
        channel: str | Iterable[str] | None = None,
        *,
        sender: str | None = None,
        payload: Mapping[str, Any] | BaseModel,
        msg_type: str | None = None,
        reply_to: str | None = None,
        scene: str | None = None,
        urgent: bool = False,
        expires_in_s: float | None = None,
        replaces: str | None = None,
        dedup_key: str | None = None,
        drafts: Sequence[str] = (),
        wait_reply_s: float | None = None,
        caller: str | None = None,
    ) -> Posted:
        """Post a message. When this returns, it is on disk.

        Args:
            channel: A name, several, or `"*"` for everybody but the sender. Left out, a correction goes wherever the
                message stands that it corrects, a reply to the sender of the message replied to.
            sender: Who posts; may be left out when `caller` is known, and must then be the same.
            payload: A `Payload` model, or a mapping beside `msg_type`.
            msg_type: The kind of message; known kinds have checked fields.
            reply_to: The message answered (id, ref, end of an id, channel:line).
            scene: A slug; inherited from the message corrected or answered.
            urgent: Whether readers get it before the rest.
            expires_in_s: After that many seconds it is no longer delivered; it stays in the history.
            replaces: The message that this one corrects.
            dedup_key: Makes the call safe to repeat: for 24 hours the sender's next post to these channels under this
                key gives the first one's answer, and completes it where it did not reach every mailbox.
            drafts: What it was written from: `path#L10-L20@commit`.
            wait_reply_s: Then wait so many seconds for the first reply in the sender's own mailbox; it counts as read.
            caller: Who is known to post.

        Raises:
            InvalidRequest: Wrong arguments or payload fields, every fault at once.
            UnknownChannel: A channel outside the roster, or almost the name of an existing one.
            UnknownReference, AmbiguousReference: `reply_to`, `replaces` or the payload's `of`.
            SchemaError: The schema of its type cannot be used.
            ReplyTooDeep, MailboxFull, KeyTaken: A guard of mq.toml, or a key of another message, forbids it.
            MessageTooLong, LockTimeout, WriteFailed: Nothing was posted.
            PartlyPosted: Some of several mailboxes have it.
        """
        faults: list[str] = []

        def checked(check: Any, *arguments: Any, of: str = "") -> Any:
            try:
                return check(*arguments)
            except InvalidRequest as error:
                faults.extend(error.faults)
            except SchemaError:
                raise  # it is the production that is at fault, not the call
            except MailError as error:
                faults.append(f"{of}: {error}")

        sender = checked(_true_sender, sender, caller) or ""
        kind_and_payload = checked(self._checked_payload, msg_type, payload)
        plain: dict[str, Any] = {}
        if kind_and_payload:
            msg_type, plain = kind_and_payload
        if scene is not None:
            checked(check_name, "scene", scene)
        if expires_in_s is not None and not 0 < expires_in_s <= _YEAR_S:
            faults.append(f"expires_in_s is {expires_in_s}; give seconds between 0 and a year")
        if dedup_key is not None and not _is_key(dedup_key):
            faults.append(f"dedup_key is {dedup_key!r}; give a text of 1 to {_KEY_CHARACTERS} characters")
        if wait_reply_s is not None and not wait_reply_s >= 0:
            faults.append(f"wait_reply_s is {wait_reply_s}; give seconds, 0 or more")
        roster = self.config.channels
        if wait_reply_s is not None and roster and sender and sender not in (*roster, *ALWAYS_ALLOWED):
            faults.append(f"nobody can answer {sender!r}, which is not on the roster: put it there, or do not wait")
        if isinstance(drafts, str) or (drafts and not all(isinstance(draft, str) and draft for draft in drafts)):
            faults.append("drafts must be a list of texts such as scenes/q2.fountain#L10-L20@3f2a91c")
        judged = plain.get("of") if msg_type in _JUDGEMENTS else None
        if replaces:
            await self._shelf.refresh()
        parent: Named | None = await self._referred_to(reply_to, "reply_to", faults) if reply_to else None
        corrected: Place | None = checked(self._resolve, replaces, of="replaces") if replaces else None
        if isinstance(judged, str):
            named = await self._referred_to(judged, "payload.of", faults)
            plain["of"] = named.id if named else judged
        channels: tuple[str, ...] = ()
        if channel is not None or parent or corrected or not (reply_to or replaces):
            channels = checked(self._recipients, channel, sender, parent, corrected) or ()
        if faults:
            raise InvalidRequest(faults)
        self._check_new(channels)
        if scene is None and corrected:
            scene = self._index.channels[corrected.channel].scene(corrected.row)
        elif scene is None and parent:
            scene = parent.scene
        draft = Draft(
            sender=sender,
            msg_type=str(msg_type),
            payload=plain,
            scene=scene,
            reply_to=None if parent is None else parent.id,
            to=channels if len(channels) > 1 else None,
            urgent=urgent,
            expires_in_us=None if expires_in_s is None else round(expires_in_s * 1e6),
            dedup_key=dedup_key,
            drafts=tuple(drafts) or None,
            replaces=None if corrected is None else self._id_of(corrected),
        )
        if dedup_key is None:
            posted = await self._post_new(draft, channels)
        else:
            # A caller that goes away leaves the post to its end: were the sender's lock let go of before the line
            # stands, the same call made again would not find it.
            keyed = asyncio.ensure_future(self._post_once(draft, channels, everybody=channel == "*"))
            keyed.add_done_callback(lambda done: done.cancelled() or done.exception())
            posted = await asyncio.shield(keyed)
        if draft.scene and draft.msg_type == _VERSION:
            posted = posted._replace(advice=await self.iteration_advice(draft.scene))
        return posted if wait_reply_s is None else await self._with_reply(posted, wait_reply_s)

    @cached_property
    def _checked_payload(self) -> Callable[[str | None, object], tuple[str, dict[str, Any]]]:
        """The check of a type and its payload by this production's rules."""
        return partial(checked_payload, schemas=self._schemas, strict=self.config.strict_types)

    async def _referred_to(self, reference: str, argument: str, faults: list[str]) -> Named | None:
        """What a reference names; None, and a fault more, if that is nothing or several.

        Where it says on which line of a mailbox that has not been read, just that line is: a post needs no index. (Of
        lines that differ under one id, which is a Problem, the one named counts then, and not the one shown.)
        """
        known = parse_reference(reference)
        channel = known.channel if known and known.channel in self._store.channels()[0] else ""
        if known and channel and not self._shelf.is_loaded(channel):
            with suppress(OSError, Unreadable):
                line = await asyncio.to_thread(self._store.mailbox(channel).line, known.line)
                message = parse_line(line, channel, known.line)
                if message.id.endswith(known.suffix):
                    return Named(message.id, message.sender, message.scene)
        await self._shelf.refresh([channel] if channel else None)
        try:
            place = self._resolve(reference)
        except MailError as error:
            faults.append(f"{argument}: {error}")
            return None
        index = self._index.channels[place.channel]
        return Named(self._id_of(place), index.sender(place.row), index.scene(place.row))

    def _recipients(
        self, channel: str | Iterable[str] | None, sender: str, parent: Named | None, corrected: Place | None
    ) -> tuple[str, ...]:
        if channel is None and corrected is not None:
            identity = self._index.channels[corrected.channel].identity(corrected.row)
            return tuple(name for name in sorted(self._index.channels) if identity in self._index.channels[name].rows)
        if channel is None:
            if parent is None:
                raise InvalidRequest(["channel is missing: name the recipient, or give reply_to to answer its sender"])
            return as_names("channel", parent.sender)
        if channel == "*":
            known = self.config.channels or sorted({*self._store.channels()[0], *self._store.archived_channels()[0]})
            everyone = tuple(name for name in known if name not in (sender, *ALWAYS_ALLOWED))
            if not everyone:
                raise InvalidRequest(["channel '*' means everybody but you, and there is nobody else yet"])
            return everyone
        names = as_names("channel", channel)
        if not names:
            raise InvalidRequest(["channel is empty: name at least one recipient"])
        return names

    def _check_new(self, channels: Sequence[str]) -> None:
        """Refuse channels outside the roster, and new ones that look like a slip."""
        roster = self.config.channels
        for name in channels:
            if roster and name not in roster and name not in ALWAYS_ALLOWED:
                raise UnknownChannel(name, roster, roster=True)
        new = [] if roster else sorted(filter(self._store.is_new, channels))
        if new:
            existing = self._store.channels()[0]
            for name in new:
                if near_miss(name, existing):
                    raise UnknownChannel(name, existing)


def _is_key(key: object) -> bool:
    return isinstance(key, str) and 0 < len(key) <= _KEY_CHARACTERS and key == key.encode(errors="ignore").decode()


def _true_sender(sender: str | None, caller: str | None) -> str:
    """The sender of a post: the known caller, whom nobody else may claim to be; or whoever the caller says."""
    if sender is None and caller is None:
        raise InvalidRequest(["sender is missing: nothing here says who you are, so name yourself"])
    if caller is not None and sender not in (None, caller):
        raise InvalidRequest([f"sender is {sender!r}, but you are known to be {caller!r}: leave sender out"])
    return check_name("sender", caller or sender)
