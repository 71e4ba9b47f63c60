"""What was said since a revision: as a conversation, in numbers, as Markdown for a pull request."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from mq_server.git.comparison import Settled, compare
from mq_server.git.markdown import code, fenced, markdown
from mq_server.message import encode_line
from tests.repositories import answer, commit, git, mq, post, production
from tests.support import examples, fields, known_id, line, write
from tests.test_git_revisions import receipt

pytestmark = pytest.mark.usefixtures("plain_git")
LINES = [line(number, id=known_id(number), text=f"message {number}") for number in range(8)]
IDS = [known_id(number) for number in range(8)]


def ids(messages: tuple[object, ...]) -> list[str]:
    return [message.id for message in messages]  # type: ignore[attr-defined]


# --- comparing --------------------------------------------------------------------------------------------------------


def test_what_is_new_comes_in_the_order_of_time_over_all_mailboxes() -> None:
    before = {"narrator.jsonl": LINES[0], "writer.jsonl": b""}
    after = {"narrator.jsonl": LINES[0] + LINES[3], "writer.jsonl": LINES[2], "dialogist.jsonl": LINES[1]}
    found = compare(before, after)
    assert ids(found.messages) == IDS[1:4]
    assert [message.ref.partition("~")[0] for message in found.messages] == ["dialogist:1", "writer:1", "narrator:2"]
    assert found.total() == "3 messages from 1 agent"
    assert compare(after, before).gone == tuple(found.messages)


def test_a_message_to_several_is_new_once_and_counts_in_each_mailbox() -> None:
    copies = {f"{name}.jsonl": line(1, id=IDS[1], channel=name, to=["a", "b"]) for name in ("a", "b")}
    found = compare({}, copies)
    assert [message.channel for message in found.messages] == ["a"]
    assert [(each.channel, each.messages) for each in found.counts] == [("a", 1), ("b", 1)]
    spread = compare({"a.jsonl": copies["a.jsonl"]}, copies)
    assert not spread.messages
    assert [message.channel for message in spread.copied] == ["b"]


def test_lines_that_only_moved_are_no_change() -> None:
    before = {"narrator.jsonl": b"".join(LINES[:4])}
    for after in (
        {"narrator.jsonl": b"".join(reversed(LINES[:4]))},
        {"narrator.jsonl": b"".join(LINES[:4]).replace(b"\n", b"\r\n")},
        {"narrator.jsonl": b"\xef\xbb\xbf\n" + b"".join(LINES[:4]) + LINES[0]},
        {"archive/2026-11/narrator.jsonl": b"".join(LINES[:2]), "narrator.jsonl": b"".join(LINES[2:4])},
    ):
        assert not compare(before, after)
        assert not compare(after, before)


def test_an_edited_line_is_shown_as_it_was_and_as_it_is() -> None:
    edited = line(1, id=IDS[1], text="better")
    found = compare({"narrator.jsonl": LINES[0] + LINES[1]}, {"narrator.jsonl": LINES[0] + edited + LINES[2]})
    [(before, after)] = found.edited
    assert (before.payload["text"], after.payload["text"]) == ("message 1", "better")
    assert ids(found.messages) == [IDS[2]]
    assert not found.gone


def test_what_cannot_be_read_is_a_problem_of_the_later_state() -> None:
    torn = b'{"id":"01\n'
    assert not compare({"narrator.jsonl": torn}, {"narrator.jsonl": torn + LINES[0]}).problems
    [problem] = compare({"narrator.jsonl": LINES[0]}, {"narrator.jsonl": LINES[0] + torn + LINES[1]}).problems
    assert str(problem).startswith("narrator.jsonl:2: torn line")


def test_receipts_are_counted_by_reader() -> None:
    before = {"receipts/narrator.jsonl": receipt(1, IDS[0])}
    after = {
        "receipts/narrator.jsonl": receipt(1, IDS[0]) + receipt(2, IDS[1], IDS[2]) + receipt(3, IDS[3], op="reject"),
        "receipts/writer.jsonl": receipt(4, IDS[2], channel="writer")
        + receipt(5, IDS[2], channel="writer", op="reopen"),
    }
    found = compare(before, after)
    assert [(each.name, each.words()) for each in found.settled] == [
        ("narrator", "2 read, 1 rejected"),
        ("writer", "1 read, 1 reopened"),
    ]
    assert Settled("narrator", "archivist", sought=1).name == "archivist of narrator"
    assert found.total() == "4 settled"


def test_other_files_are_none_of_its_business() -> None:
    names = ["mq.toml", "schemas/x.json", "Not A Name.jsonl", "notes/narrator.jsonl", ".narrator.jsonl"]
    assert not compare({}, dict.fromkeys(names, LINES[0]))


@examples(60)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 7)), max_size=12), st.integers(0, 12))
def test_new_and_gone_are_what_one_side_has_and_the_other_lacks(rows: list[tuple[str, int]], at: int) -> None:
    def files(some: list[tuple[str, int]]) -> dict[str, bytes]:
        return {
            f"{name}.jsonl": b"".join(LINES[number] for channel, number in some if channel == name)
            for name in ("a", "b")
        }

    forth, back = compare(files(rows[:at]), files(rows)), compare(files(rows), files(rows[:at]))
    new = {number for _, number in rows} - {number for _, number in rows[:at]}
    assert ids(forth.messages) == [IDS[number] for number in sorted(new)]
    assert ids(back.gone) == sorted({*ids(forth.messages), *ids(forth.copied)})
    assert not forth.gone
    assert not forth.edited


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A production with one committed message."""
    root = production(tmp_path / "r")
    post(root, "narrator", "Committed.", "--scene", "q2-s3")
    commit(root)
    return root


def test_by_default_it_is_head_against_the_files_as_they_are(root: Path) -> None:
    assert "nothing was said since HEAD" in mq(root, "diff").stderr
    post(root, "narrator", "Not yet.")
    mq(root, "read", "narrator", "--ack")
    shown = mq(root, "diff").stdout
    assert "Not yet." in shown
    assert "Committed." not in shown
    assert shown.endswith("Settled:\n    narrator: 2 read\n")
    git(root, "add", "--all")
    assert mq(root, "diff").stdout == shown


def test_messages_are_printed_as_show_prints_them(root: Path) -> None:
    post(root, "narrator", "One.\nTwo.", "--scene", "q2-s3", sender="scene_director")
    post(root, "dialogist", "Three.", "--reply-to", "narrator:2", sender="narrator")
    entries = mq(root, "show").stdout.split("\n\n", 2)[2]
    assert mq(root, "diff").stdout == entries


def test_before_the_first_commit_everything_is_new(tmp_path: Path) -> None:
    root = production(tmp_path / "r")
    post(root, "narrator", "The very first.")
    assert "The very first." in mq(root, "diff").stdout
    assert "no revision 'HEAD'" in mq(root, "diff", "HEAD", code=3).stderr


def test_two_revisions_are_compared_and_the_files_left_alone(root: Path) -> None:
    git(root, "checkout", "--quiet", "-b", "draft")
    post(root, "narrator", "On the draft.")
    commit(root)
    git(root, "checkout", "--quiet", "main")
    post(root, "writer", "On main.")
    commit(root)
    post(root, "writer", "Uncommitted.")

    def texts(*arguments: str) -> tuple[list[str], list[str]]:
        shown = answer(root, "diff", *arguments)
        return tuple([each["payload"]["text"] for each in shown[key]] for key in ("messages", "gone"))  # type: ignore[return-value]

    assert texts("main..draft") == (["On the draft."], ["On main."])
    assert texts("main...draft") == (["On the draft."], [])
    assert texts("draft...") == (["On main."], [])
    assert texts("..draft") == texts("main..draft")
    assert "from where draft left main (" in mq(root, "diff", "main...draft", "--format", "md").stdout
    assert texts("draft") == (["On main.", "Uncommitted."], ["On the draft."])
    assert "There is no revision 'nope'" in mq(root, "diff", "main..nope", code=3).stderr
    git(root, "checkout", "--quiet", "--orphan", "other")
    commit(root)
    assert "no common beginning" in mq(root, "diff", "main...other", code=3).stderr


def test_a_hand_edit_is_shown_before_and_after_and_a_removal_as_gone(root: Path) -> None:
    post(root, "narrator", "To be removed.")
    commit(root)
    path = root / "narrator.jsonl"
    first, _ = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first.replace(b"Committed.", b"Edited."))
    shown = mq(root, "diff").stdout
    assert re.search(
        r"narrator:1~.... was edited. Before:\n\n.*Committed\.\n\nAfter:\n\n.*Edited\.\n\nGone:\n\n.*To be removed\.",
        shown,
        re.DOTALL,
    )
    stat = answer(root, "diff", "--stat")
    assert stat["channels"] == [{"channel": "narrator", "messages": 0, "edited": 1, "gone": 1}]


def test_stat_counts_by_channel_sender_and_type(root: Path) -> None:
    post(root, "narrator", "Rain.")
    post(root, "dialogist", "Rain or snow?", kind="query", sender="narrator")
    assert mq(root, "diff", "--stat").stdout == (
        "channel    new\n"
        "dialogist    1\n"
        "narrator     1\n"
        "\n"
        "sender    type   new\n"
        "narrator  query    1\n"
        "writer    note     1\n"
        "\n"
        "2 messages from 2 agents\n"
    )


def test_json_has_all_of_it(root: Path) -> None:
    ref = post(root, "narrator", "Rain.")
    shown = answer(root, "diff")
    assert (shown["since"], shown["until"]) == (git(root, "rev-parse", "HEAD").strip(), None)
    assert [message["ref"] for message in shown["messages"]] == [ref]
    assert [shown[key] for key in ("edited", "gone", "settled")] == [[], [], []]


def test_escapes_in_what_was_said_do_not_reach_the_terminal(root: Path) -> None:
    post(root, "narrator", "\x1b[31mred")
    assert "␛[31mred" in mq(root, "diff").stdout


# --- Markdown ---------------------------------------------------------------------------------------------------------

NASTY = "\\|```\n</code></pre><script>alert(1)</script> @everyone #1 [x](javascript:x) | ~~~ ````` <!-- \x1b ‮"


def test_markdown_is_a_table_and_then_the_conversation(root: Path) -> None:
    post(root, "narrator", "Rain.", "--scene", "q2-s3")
    text = mq(root, "diff", "--format", "md").stdout
    head = git(root, "rev-parse", "--short=7", "HEAD").strip()
    assert text.startswith(f"**1 message from 1 agent** `since HEAD ({head})`\n\n| channel | new | edited | gone |\n")
    assert "| `narrator` | 1 |  |  |\n" in text
    assert "### Conversation\n\n**`writer → narrator`** · `note` · `q2-s3` · " in text
    assert text.endswith("```text\nRain.\n```\n")
    assert "Conversation" not in mq(root, "diff", "--format", "md", "--stat").stdout


def prose_of(text: str) -> str:
    """What of a Markdown text is no code, as a Markdown parser reads it; it has neither HTML nor links."""
    found: list[str] = []
    for block in MarkdownIt("commonmark").enable("table").parse(text):
        assert not block.type.startswith("html"), block
        for token in block.children or []:
            assert token.type in (
                "text",
                "softbreak",
                "strong_open",
                "strong_close",
                "em_open",
                "em_close",
                "code_inline",
            )
            found += [token.content] if token.type == "text" else []
    return "\n".join(found)


def test_nothing_that_is_said_is_markup() -> None:
    said = line(1, id=IDS[1], sender=NASTY, msg_type="`|` x", scene="`", payload={"text": NASTY, NASTY: [NASTY]})
    for lines in (said, line(1, id=IDS[1], sender=NASTY, payload={"text": "x" * 99_999 + NASTY})):
        for text in (
            markdown(compare({}, {"narrator.jsonl": lines}), "since `x`", "main`"),
            markdown(compare({"narrator.jsonl": lines}, {}), "since x", "main"),
            markdown(compare({"narrator.jsonl": lines}, {"narrator.jsonl": lines.replace(b"note", b"nota")}), "x", "x"),
        ):
            outside = prose_of(text)
            for part in ("script", "everyone", "javascript", "<", "\x1b", "‮", "#1"):
                assert part not in outside, (part, outside)
            rows = [row for row in text.split("\n") if row.startswith("| `")]
            assert all(row.count("|") in (4, 5) for row in rows)


@examples(100)
@given(st.text(alphabet="`|~<a \n\\", max_size=20))
def test_code_is_code_whatever_is_in_it(text: str) -> None:
    assert not prose_of(code(text))
    assert not prose_of(fenced(text.split("\n")))
    assert prose_of(f"before {code(text)} after") == "before \n after"


@pytest.mark.parametrize(("count", "characters", "said"), [(15, 9_000, "first 40 lines"), (2_000, 400, "one line")])
def test_a_long_conversation_is_abbreviated_to_what_hosting_sites_take(count: int, characters: int, said: str) -> None:
    text = ("word " * (characters // 5)).strip()
    messages = [encode_line(fields(number, sender=f"a{number % 7}", payload={"text": text})) for number in range(count)]
    found = compare({}, {"narrator.jsonl": b"".join(messages)})
    shown = markdown(found, "since main", "main")
    assert len(shown) < 65_536
    assert len(shown) > 20_000
    assert said in shown
    assert "All of it: `mq diff main`" in shown
    assert found.messages[-1].ref in shown
    assert (found.messages[0].ref in shown) == (count == 15)
    assert ("earlier ones left out" in shown) == (count > 15)
    assert not prose_of(shown).count("word")


def test_a_change_everywhere_fits_too() -> None:
    names = [f"channel_{number:03}" for number in range(400)]
    old = {f"{name}.jsonl": line(place, id=known_id(place)) for place, name in enumerate(names)}
    edited = {name: data.replace(b"message", b"edited " * 50) for name, data in old.items()}
    shown = markdown(compare(old, edited), "since main", "main")
    assert len(shown) < 65_536
    assert "and 360 more" in shown


def test_a_production_in_git_is_compared_whatever_its_attributes(root: Path) -> None:
    write(root / ".gitattributes", b"*.jsonl text eol=crlf\n")
    commit(root)
    (root / "narrator.jsonl").unlink()
    git(root, "checkout", "--", "narrator.jsonl")
    assert b"\r\n" in (root / "narrator.jsonl").read_bytes()
    assert not mq(root, "diff").stdout
