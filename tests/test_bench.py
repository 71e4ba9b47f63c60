"""The benchmark: that it refuses wrong results, leaves out who is missing, and shows what it found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner

from tools.bench import calls, chart, libraries, posting, scaling, servers, table, waking
from tools.bench.__main__ import ROWS, main
from tools.bench.corpus import CHANNELS, THREAD_LENGTH, Corpus
from tools.bench.floor import Round
from tools.bench.machine import Machine
from tools.bench.measuring import (
    NATS,
    OURS,
    REDIS,
    SQLITE,
    Figure,
    LeftOut,
    Outcome,
    Row,
    Sample,
    Site,
    WrongResult,
    check,
    run,
)

MESSAGES = 400
SVG = "{http://www.w3.org/2000/svg}"
MACHINE = Machine("a processor", 2, "Linux", "3.11", "ext4", 165.0)
POSTS = {REDIS: posting.REDIS_POSTS, NATS: posting.NATS_POSTS, SQLITE: posting.SQLITE_POSTS}
LIBRARIES = {
    REDIS: libraries.REDIS_LIBRARY,
    NATS: libraries.NATS_LIBRARY,
    SQLITE: libraries.SQLITE_LIBRARY,
    "sqlite FTS5": libraries.SEARCHABLE_SQLITE,
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    folder = tmp_path / "sample"
    folder.mkdir()
    return Site(folder, Corpus.written(tmp_path / "corpus", MESSAGES), quick=True)


def of_installed(measure: Callable[[], Sample]) -> Sample:
    """A sample; the test is skipped where the peer is not installed."""
    try:
        return measure()
    except LeftOut as reason:
        pytest.skip(str(reason))


def one_row(name: str, **contenders: float) -> Outcome:
    """An outcome with one sample of each."""
    row = Row(name=name, title=f"row {name}", chapter="Chapter", figures=(Figure("ms", "ms"),), contenders={})
    return Outcome(row, {contender: [{"ms": value}] for contender, value in contenders.items()})


# --- peers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("peer", POSTS)
def test_what_is_posted_to_a_peer_is_read_back(peer: str, durable: bool, site: Site) -> None:
    sample = of_installed(lambda: posting.measure_callers(POSTS[peer], 2, 100, durable, site))
    assert sample["per_s"] > 0


@pytest.mark.parametrize("peer", LIBRARIES)
@pytest.mark.parametrize("question", [libraries.history, libraries.thread, libraries.activity])
def test_a_peer_answers_from_the_whole_production(
    peer: str, question: Callable[[Corpus], libraries.Question], site: Site
) -> None:
    sample = of_installed(lambda: libraries.measure_question(LIBRARIES[peer], question, 50, site))
    assert 0 < sample["p50_ms"] <= sample["p95_ms"]


@pytest.mark.parametrize("peer", [SQLITE, "sqlite FTS5"])
def test_a_peer_that_searches_finds_the_rare_word(peer: str, site: Site) -> None:
    assert libraries.measure_question(LIBRARIES[peer], libraries.search, 50, site)["p50_ms"] > 0


@pytest.mark.parametrize("peer", [REDIS, NATS])
def test_a_peer_tells_when_it_is_ready_and_what_it_holds(peer: str, site: Site) -> None:
    assert of_installed(lambda: libraries.measure_ready(LIBRARIES[peer], site))["s"] > 0
    assert libraries.measure_memory(LIBRARIES[peer], site)["held_b"] > 0


@pytest.mark.parametrize("peer", [REDIS, NATS])
def test_a_reader_of_a_peer_is_woken_by_each_post(peer: str, site: Site) -> None:
    sample = of_installed(lambda: waking.measure_two_processes(waking.KINDS[peer], site))
    assert sample["p50_ms"] > 0


def test_a_peer_whose_program_is_missing_is_left_out(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda *_, **__: None)
    with pytest.raises(LeftOut), posting.REDIS_POSTS.served(site.folder, True):
        pass


def test_a_peer_whose_client_is_missing_is_left_out() -> None:
    with pytest.raises(LeftOut, match="bench"):
        servers.imported("no_such_client")


# --- measuring ----------------------------------------------------------------------------------------------------


def absent(_: Site) -> Sample:
    """A contender that is not installed."""
    raise LeftOut("it is not installed")


def wrong(_: Site) -> Sample:
    """A contender that loses a message."""
    check(["a", "b"], ["a"])
    return {}


def quick_one(_: Site) -> Sample:
    """A contender that works."""
    return {"ms": 1.0}


def measured(tmp_path: Path, **contenders: Callable[[Site], Sample]) -> Outcome:
    row = Row(name="row", title="row", chapter="Chapter", figures=(Figure("ms", "ms"),), contenders=contenders)
    (outcome,) = run([row], folder=tmp_path, repeats=2, quick=True, messages=MESSAGES, progress=lambda _: None)
    return outcome


def test_a_missing_contender_is_noted_and_the_others_are_measured(tmp_path: Path) -> None:
    outcome = measured(tmp_path, mq=quick_one, redis=absent)
    assert outcome.left_out == {REDIS: "it is not installed"}
    assert outcome.samples == {OURS: [{"ms": 1.0}] * 2}


def test_a_contender_that_loses_a_message_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(WrongResult, match="1 missing"):
        measured(tmp_path, mq=wrong)


def test_callers_of_one_round_share_a_store() -> None:
    stored: list[list[int]] = []

    async def work() -> None:
        shared = Round(stored.append)
        await asyncio.gather(*map(shared.add, range(3)))
        await shared.add(3)

    asyncio.run(work())
    assert stored == [[0, 1, 2], [3]]


def test_the_corpus_is_told_in_order_with_the_heads_of_its_threads(site: Site) -> None:
    messages = list(site.known().in_order())
    assert len(messages) == MESSAGES
    assert [message.id for message in messages] == sorted(message.id for message in messages)
    assert {message.head for message in messages} == set(site.known().heads)
    assert len(messages) // len(site.known().heads) == THREAD_LENGTH
    assert {message.channel for message in messages} == set(CHANNELS)


def test_a_production_of_some_size_is_measured_from_a_post_to_an_editors_save(tmp_path: Path) -> None:
    found = scaling.measure(tmp_path / "production", scaling.Size(400, 10), quick=True)
    assert found.keys() == scaling.TITLES.keys()
    assert min(found.values()) >= 0 and min(found[name] for name in scaling.CALLS) > 0
    assert len(list((tmp_path / "production").glob("*.jsonl"))) == 10


# --- showing ------------------------------------------------------------------------------------------------------


def test_the_table_compares_and_marks_what_was_not_measured() -> None:
    outcomes = [one_row("a", mq=2.0, floor=1.0, redis=4.0), one_row("b", mq=1.0), one_row("c", mq=-0.5, redis=0.1)]
    shown = table.markdown(outcomes, MACHINE, quick=False, messages=MESSAGES)
    assert "| row a | ms | 2 | 1 | 4 | 0.50 | 2.00 |" in shown
    assert "| row b | ms | 1 | — | — | — | — |" in shown
    assert "| row c | ms | -0.5 | — | 0.1 | — | — |" in shown


def test_a_saved_run_is_shown_as_it_was(tmp_path: Path) -> None:
    outcomes = [one_row("a", mq=2.0, redis=4.0)]
    saved = tmp_path / "run.json"
    saved.write_text(json.dumps(table.as_json(outcomes, MACHINE, quick=True, messages=MESSAGES)))
    drawn = tmp_path / "run.svg"
    result = CliRunner().invoke(main, ["--from", str(saved), "--chart", str(drawn)])
    assert result.output.strip() == table.markdown(outcomes, MACHINE, quick=True, messages=MESSAGES)
    assert drawn.read_text() == chart.svg(outcomes, MACHINE)


def test_the_chart_has_a_mark_for_each_ratio_of_rows_with_a_peer() -> None:
    outcomes = [one_row("a", mq=2.0, floor=1.0, redis=4.0, nats=9.0), one_row("b", mq=1.0, floor=3.0)]
    root = ElementTree.fromstring(chart.svg(outcomes, MACHINE))
    titles = [element.text for element in root.iter(f"{SVG}title")]
    assert titles == ["Redis: 2.00×", "NATS JetStream: 4.50×", "the floor: 0.50×"]


def test_the_rows_have_names_of_their_own_and_the_command_lists_them() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    listed = CliRunner().invoke(main, ["--list"]).output
    assert [line.split()[0] for line in listed.splitlines()] == names


def test_an_unknown_row_is_refused() -> None:
    result = CliRunner().invoke(main, ["no-such-row"])
    assert result.exit_code == 2 and "no-such-row" in result.output


def test_growth_is_shown_as_a_table_and_a_line_for_each_call(tmp_path: Path) -> None:
    slower = dict.fromkeys(scaling.TITLES, 2.0)
    found = scaling.Growth(
        {scaling.Size(1_000, 8): dict.fromkeys(scaling.TITLES, 1.0), scaling.Size(100_000, 8): slower},
        {scaling.Size(10_000, 8): slower, scaling.Size(10_000, 500): slower},
    )
    saved, drawn = tmp_path / "run.json", tmp_path / "run.svg"
    saved.write_text(json.dumps({"machine": MACHINE._asdict(), "growth": scaling.as_json(found)}))
    shown = CliRunner().invoke(main, ["--from", str(saved), "--chart", str(drawn)]).output
    assert "| ms, by messages, in 8 channels | 1,000 | 100,000 |" in shown
    assert "| thread of 20 | 1 | 2 |" in shown
    titles = [element.text for element in ElementTree.fromstring(drawn.read_text()).iter(f"{SVG}title")]
    assert len(titles) == 2 * len(scaling.CALLS)
    assert "durable post: 1 ms at 1,000, 2 ms at 100,000" in titles


def test_the_time_of_calls_is_taken_apart(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(calls, "_ROUNDS", 1)
    monkeypatch.setattr(calls, "_CALLS", 5)
    calls.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0] for row in rows[:4]] == [
        "| post",
        "| read 10",
        "| wait, and ack one",
        "| session, with a post",
    ]
    assert len(rows) == 8
