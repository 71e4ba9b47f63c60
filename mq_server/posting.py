"""Posting: who gets a message, what it inherits, what is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mq_server.answers import Posted, Recipient
from mq_server.columns import Place
from mq_server.errors import InvalidRequest, MailError, MessageTooLong, UnknownChannel, near_miss
from mq_server.message import Draft, encode_line
from mq_server.names import as_names, check_name
from mq_server.room import Room
from mq_server.store import Append

if TYPE_CHECKING:
    from pydantic import BaseModel

ALWAYS_ALLOWED = ("notes", "dead_letters")
"""Channels that may be posted to though they are on no roster."""
_YEAR_S = 366 * 86400
_SAMPLE_ID = "0" * 26
_JUDGEMENTS = ("score", "finalize", "feedback")


class Posting(Room):
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
            scene: A slug; inherited from the message answered.
            urgent: Whether readers get it before the rest.
            expires_in_s: After that many seconds it is no longer delivered; it stays in the history.
            replaces: The message that this one corrects.
            caller: Who is known to post.

        Raises:
            InvalidRequest: Wrong arguments or payload fields, every fault at once.
            UnknownChannel: A channel outside the roster, or almost the name of an existing one.
            UnknownReference, AmbiguousReference: `reply_to`, `replaces` or the payload's `of`.
            MessageTooLong, LockTimeout, WriteFailed: Nothing was posted.
            PartlyPosted: Some of several mailboxes have it.
        """
        from mq_server.payloads import checked_payload  # it brings pydantic, which readers start without

        faults: list[str] = []

        def checked(check: Any, *arguments: Any, of: str = "") -> Any:
            try:
                return check(*arguments)
            except InvalidRequest as error:
                faults.extend(error.faults)
            except MailError as error:
                faults.append(f"{of}: {error}")

        sender = checked(_true_sender, sender, caller) or ""
        kind_and_payload = checked(checked_payload, msg_type, payload)
        plain: dict[str, Any] = {}
        if kind_and_payload:
            msg_type, plain = kind_and_payload
        if scene is not None:
            checked(check_name, "scene", scene)
        if expires_in_s is not None and not 0 < expires_in_s <= _YEAR_S:
            faults.append(f"expires_in_s is {expires_in_s}; give seconds between 0 and a year")
        judged = plain.get("of") if msg_type in _JUDGEMENTS else None
        if reply_to or replaces or judged or channel == "*":
            await self._shelf.refresh()
        parent: Place | None = checked(self._resolve, reply_to, of="reply_to") if reply_to else None
        corrected: Place | None = checked(self._resolve, replaces, of="replaces") if replaces else None
        if isinstance(judged, str):
            place = checked(self._resolve, judged, of="payload.of")
            plain["of"] = self._id_of(place) if place else judged
        channels: tuple[str, ...] = ()
        if channel is not None or parent or corrected or not (reply_to or replaces):
            channels = checked(self._recipients, channel, sender, parent, corrected) or ()
        if faults:
            raise InvalidRequest(faults)
        created = self._check_new(channels)
        if scene is None and parent is not None:
            scene = self._index.channels[parent.channel].scene(parent.row)
        draft = Draft(
            sender=sender,
            msg_type=str(msg_type),
            payload=plain,
            scene=scene,
            reply_to=None if parent is None else self._id_of(parent),
            to=channels if len(channels) > 1 else None,
            urgent=urgent,
            expires_in_us=None if expires_in_s is None else round(expires_in_s * 1e6),
            replaces=None if corrected is None else self._id_of(corrected),
        )
        return await self._post(draft, channels, created)

    def _recipients(
        self, channel: str | Iterable[str] | None, sender: str, parent: Place | None, corrected: Place | None
    ) -> tuple[str, ...]:
        if channel is None and corrected is not None:
            identity = self._index.channels[corrected.channel].identity(corrected.row)
            return tuple(name for name in sorted(self._index.channels) if identity in self._index.channels[name].rows)
        if channel is None:
            if parent is None:
                raise InvalidRequest(["channel is missing: name the recipient, or give reply_to to answer its sender"])
            return as_names("channel", self._index.channels[parent.channel].sender(parent.row))
        if channel == "*":
            known = self.config.channels or sorted(self._index.channels)
            everyone = tuple(name for name in known if name not in (sender, *ALWAYS_ALLOWED))
            if not everyone:
                raise InvalidRequest(["channel '*' means everybody but you, and there is nobody else yet"])
            return everyone
        names = as_names("channel", channel)
        if not names:
            raise InvalidRequest(["channel is empty: name at least one recipient"])
        return names

    def _check_new(self, channels: Sequence[str]) -> set[str]:
        """The channels this post makes; refuses those outside the roster and those that look like a slip."""
        roster = self.config.channels
        new = {name for name in channels if not self._store.mailbox(name).path.exists()}
        for name in channels:
            if roster and name not in roster and name not in ALWAYS_ALLOWED:
                raise UnknownChannel(name, roster, roster=True)
        if new and not roster:
            existing = self._store.channels()[0]
            for name in sorted(new):
                if near_miss(name, existing):
                    raise UnknownChannel(name, existing)
        return new

    async def _post(self, draft: Draft, channels: Sequence[str], created: set[str]) -> Posted:
        def encode(message_id: str, time_us: int, channel: str) -> bytes:
            return encode_line(draft.message(message_id, time_us, channel, 0).stored())

        size = max(len(encode(_SAMPLE_ID, 0, channel)) for channel in channels)
        if size > self.config.max_message_bytes:
            raise MessageTooLong(size, self.config.max_message_bytes)
        logs = {channel: self._store.mailbox(channel) for channel in sorted(channels)}
        durable = self.config.durability == "disk"
        # Counted now, since those who wait are gone with the message before the caller hears of it.
        waiting = {name: self._shelf.feed.waiting(name) for name in channels}
        stored = await self._append(Append(logs, encode, self.config.lock_timeout_s, durable))
        await self._shelf.posted(channels)
        message = draft.message(stored.id, stored.time_us, channels[0], stored.lines[channels[0]])
        return Posted(
            message=message, recipients=tuple(self._recipient(name, created, waiting[name]) for name in channels)
        )

    def _recipient(self, name: str, created: set[str], waiting: int) -> Recipient:
        unread = self._count_deliverable(name, name) if self._shelf.is_loaded(name) else None
        return Recipient(channel=name, created=name in created, waiting=waiting, unread=unread)


def _true_sender(sender: str | None, caller: str | None) -> str:
    """The sender of a post: the known caller, whom nobody else may claim to be; or whoever the caller says."""
    if sender is None and caller is None:
        raise InvalidRequest(["sender is missing: nothing here says who you are, so name yourself"])
    if caller is not None and sender not in (None, caller):
        raise InvalidRequest([f"sender is {sender!r}, but you are known to be {caller!r}: leave sender out"])
    return check_name("sender", caller or sender)
