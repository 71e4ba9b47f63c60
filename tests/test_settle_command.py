"""`mq settle`, `mq status`, `mq read --lease`, `mq post --wait-reply`, as people use them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import eventually
from tests.test_cli import answer, mq, post, running


def test_a_claimed_message_is_settled_by_its_lease(tmp_path: Path) -> None:
    ref = post(tmp_path)
    claimed = answer(tmp_path, "read", "narrator", "--lease", "10m", "--consumer", "one")["messages"][0]
    assert claimed["lease_s"] == 600
    shown = mq(tmp_path, "status", "narrator").stdout
    assert re.search(rf"{ref}  held by one for another (5\d\d|600) s", shown)
    assert "held by one" in mq(tmp_path, "settle", "narrator", "--ack", ref, code=3).stderr
    assert mq(tmp_path, "settle", "narrator", "--ack", claimed["lease"]).stdout == f"acked  {claimed['id']}\n"
    assert "acked already by" in mq(tmp_path, "settle", "narrator", "--ack", ref, code=3).stderr


def test_what_is_claimed_is_shown_with_its_lease(tmp_path: Path) -> None:
    post(tmp_path)
    assert "claimed for 60 s as 01" in mq(tmp_path, "read", "narrator", "--lease", "1m").stdout
    post(tmp_path, text="More.")
    usage = mq(tmp_path, "read", "narrator", "--lease", "60", "--ack", code=2).stderr
    assert "--lease claims what is shown" in usage


def test_a_message_is_released_rejected_reopened_and_sought(tmp_path: Path) -> None:
    ref = post(tmp_path)
    mq(tmp_path, "read", "narrator", "--lease", "60")
    assert "released" in mq(tmp_path, "settle", "narrator", "--release", ref, "--delay", "1h").stdout
    assert not answer(tmp_path, "read", "narrator")["messages"]
    rejected = mq(tmp_path, "settle", "narrator", "--reject", ref, "--reason", "no rain today").stdout
    assert rejected.startswith("rejected  01") and "dead letter  01" in rejected
    told = mq(tmp_path, "status", ref).stdout
    assert "narrator: rejected" in told and "rejected by narrator: no rain today" in told
    assert "reopened" in mq(tmp_path, "settle", "dead_letters", "--reopen", "dead_letters:1").stdout
    assert len(answer(tmp_path, "read", "narrator")["messages"]) == 1
    assert "narrator: what is stamped from 20" in mq(tmp_path, "settle", "narrator", "--seek", "now").stdout
    assert not answer(tmp_path, "read", "narrator")["messages"]
    mq(tmp_path, "settle", "narrator", "--seek", "2h")
    assert len(answer(tmp_path, "read", "narrator")["messages"]) == 1


def test_status_tells_a_message_from_a_channel(tmp_path: Path) -> None:
    ref = post(tmp_path)
    assert answer(tmp_path, "status", "narrator")["readers"] == [{"reader": "narrator", "unread": 1}]
    assert answer(tmp_path, "status", ref)["progress"][0]["state"] == "stored"
    assert "No message is named" in mq(tmp_path, "status", "nobody", code=3).stderr


def test_a_question_waits_for_its_answer_and_prints_it(tmp_path: Path) -> None:
    post(tmp_path, "writer", "First.")
    asking = ("post", "narrator", "--sender", "writer", "--type", "query", "--text", "Rain?", "--wait-reply", "20")
    with running("--root", tmp_path, *asking) as asker:
        asked = ("search", "Rain?", "--type", "query")
        question = eventually(lambda: answer(tmp_path, *asked)["hits"])[0]["ref"]
        post(tmp_path, "", "Snow.", "--reply-to", question, sender="narrator")
        assert "Snow." in asker.communicate()[0]
        assert asker.returncode == 0


def test_a_question_that_nobody_answers_says_how_to_go_on(tmp_path: Path) -> None:
    post(tmp_path, "writer", "And you?", sender="narrator")
    asking = ("post", "narrator", "--sender", "writer", "--type", "query", "--text", "Rain?", "--wait-reply", "0.1")
    told = mq(tmp_path, *asking, code=4)
    assert "no reply yet: mq wait writer --reply-to 01" in told.stderr
    assert "1 unread in writer meanwhile" in told.stderr
    document = answer(tmp_path, *asking, code=4)
    assert document["reply"]["timed_out"] is True


def test_a_repeated_post_says_so(tmp_path: Path) -> None:
    first = mq(tmp_path, "post", "narrator", "--sender", "a", "--type", "note", "--text", "x", "--dedup-key", "k")
    again = mq(tmp_path, "post", "narrator", "--sender", "a", "--type", "note", "--text", "y", "--dedup-key", "k")
    assert again.stdout.split(" ")[0] == first.stdout.split(" ")[0]
    assert "posted before under this key, and with another content" in again.stderr


def test_whoever_lost_the_thread_sees_what_they_hold_and_asked(tmp_path: Path) -> None:
    post(tmp_path)
    mq(tmp_path, "post", "dialogist", "--sender", "narrator", "--type", "query", "--text", "Who?")
    mq(tmp_path, "read", "narrator", "--lease", "60")
    shown = mq(tmp_path, "channels", "--reader", "narrator").stdout
    assert "Held by narrator:" in shown and "Unanswered questions by narrator:" in shown
