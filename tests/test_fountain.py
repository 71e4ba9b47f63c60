"""Screenplays: what programs read out of them is what the messages say. Two parsers of other people's are asked."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from typing import Any

import pytest
from fountain_tools.fountain import ElementType
from fountain_tools.parser import Parser
from hypothesis import example, given
from hypothesis import strategies as st
from screenplain.parsers import fountain as screenplain
from screenplain.types import Action, Dialog, DualDialog, PageBreak, Section, Slug, Transition

from mq_server.message import Message
from mq_server.render.fountain import fountain
from mq_server.render.text import visible, visible_line
from mq_server.scenes import Finalised, SceneState, SceneVersion
from tests.rendering import SCENE, edition_of, everything_hostile, markup, said
from tests.support import examples, known_id

Element = tuple[str, str]


def bare(text: str) -> str:
    """Text without white space and without what keeps it from being markup."""
    return re.sub(r"[\\_\u200b\s]", "", text).translate(str.maketrans("ˆ（）", "^()"))


def by_screenplain(screenplay: str) -> list[Element]:
    """What one parser finds, without the title page."""
    found: list[Element] = []
    for paragraph in screenplain.parse(io.StringIO(screenplay)):
        match paragraph:
            case Slug():
                found.append(("heading", str(paragraph.line)))
            case Section():
                found.append(("section", str(paragraph.text)))
            case PageBreak():
                found.append(("page", ""))
            case Dialog():
                found.append(("cue", str(paragraph.character)))
                found += [("aside" if aside else "line", str(text)) for aside, text in paragraph.blocks]
            case Action():
                assert not paragraph.centered
                found += [("action", str(line)) for line in paragraph.lines]
            case DualDialog() | Transition():
                raise AssertionError(paragraph)
    return joined(found)


def by_fountain_tools(screenplay: str) -> list[Element]:
    """What the other one finds."""
    parser = Parser()
    parser.mergeActions = parser.mergeDialogue = False
    parser.add_text(screenplay)
    assert not parser.script.boneyards
    found: list[Element] = []
    for element in parser.script.elements:
        text = element.text_raw
        match element.type:
            case ElementType.HEADING:
                assert element.scene_number is None
                found.append(("heading", text))
            case ElementType.SECTION:
                found.append(("section", text))
            case ElementType.PAGEBREAK:
                found.append(("page", ""))
            case ElementType.CHARACTER:
                assert not element.is_dual_dialogue
                found.append(("cue", element.name + (f"({element.extension})" if element.extension else "")))
            case ElementType.PARENTHETICAL:
                found.append(("aside", f"({text})"))
            case ElementType.DIALOGUE:
                found.append(("line", text))
            case ElementType.ACTION:
                assert not element.centered
                found.append(("action", re.sub(r"^\[\[0\]\]$", "", text)))  # the note that says which version it is
            case _:
                raise AssertionError(element.dump())
    return joined(found)


def joined(elements: list[Element]) -> list[Element]:
    """Elements without empty ones; action and dialogue that follow each other are one."""
    found: list[Element] = []
    for kind, text in ((kind, bare(text)) for kind, text in elements):
        if found and kind == found[-1][0] and kind in ("action", "line"):
            found[-1] = (kind, found[-1][1] + text)
        elif text or kind == "page":
            found.append((kind, text))
    return found


def version(blocks: list[dict[str, Any]], number: int = 1, **fields: Any) -> Message:
    return said(number, "scene", {"version": number, "title": "The Other Fifty", "blocks": blocks}, **fields)


def body(screenplay: str) -> str:
    """What follows the title page and the heading of the first version."""
    return screenplay.split("\n\n", 4)[-1].rstrip("\n")


BLOCKS = [
    {"kind": "action", "text": "The pans swing.\n\nNobody moves."},
    {"kind": "parenthetical", "who": "Kreszenz", "text": "after a while"},
    {"kind": "line", "who": "Kreszenz", "text": "Toni never could divide."},
    {"kind": "line", "who": "Köbi", "text": "No."},
    {"kind": "line", "who": "Köbi", "text": "Never."},
]


def test_a_version_is_a_scene_with_action_cues_and_parentheticals() -> None:
    breakdown = said(1, "scene_breakdown", {"setting": "INT. WEIGH-ROOM – LATE AFTERNOON", "beats": ["They weigh."]})
    screenplay = fountain(edition_of([breakdown, version(BLOCKS, 2)], title="The Other Fifty"))
    ref = version(BLOCKS, 2).ref
    assert screenplay.splitlines() == [
        "Title: The Other Fifty",
        "Credit: Written by",
        "Author: scene_director",
        "Source: scene q2-s3",
        "Draft date: 2026-09-21",
        "",
        "## Version 2",
        "",
        f"[[{ref} by scene_director]]",
        "",
        "INT. WEIGH-ROOM – LATE AFTERNOON",
        "",
        "The pans swing.",
        "",
        "Nobody moves.",
        "",
        "KRESZENZ",
        "(after a while)",
        "Toni never could divide.",
        "",
        "KÖBI",
        "No.",
        "Never.",
    ]
    expected = [
        ("section", "Version2"),
        ("heading", "INT.WEIGH-ROOM–LATEAFTERNOON"),
        ("action", "Thepansswing.Nobodymoves."),
        ("cue", "KRESZENZ"),
        ("aside", "(afterawhile)"),
        ("line", "Toninevercoulddivide."),
        ("cue", "KÖBI"),
        ("line", "No.Never."),
    ]
    assert by_screenplain(screenplay) == expected
    assert by_fountain_tools(screenplay) == expected


def test_a_scene_without_a_setting_has_a_forced_heading() -> None:
    assert "\n.THE OTHER FIFTY\n" in fountain(edition_of([version(BLOCKS)]))
    numbered = said(1, "scene_breakdown", {"setting": "Room #12#", "beats": ["x"]})
    assert "\n.ROOM #12 #\n" in fountain(edition_of([numbered, version(BLOCKS, 2)]))


@pytest.mark.parametrize(
    "line",
    [
        "THE PANS SWING",
        "HALT!",
        "@home",
        "!Now",
        "> SMASH",
        "> middle <",
        "#1",
        "=",
        "===",
        "~la la",
        ".38 calibre",
        "INT. NOWHERE",
        "ext. nowhere",
        "I/E car",
        "FADE IN:",
        "CUT TO:",
        "A /* b */ c",
        "A [[note]] b",
        "[[[x]]]",
        "*a* **b** _c_ d_e",
        r"\*a\*",
        "Title: x",
        "(softly)",
        "A (B) ^",
    ],
)
def test_text_that_looks_like_markup_stays_what_it_is(line: str) -> None:
    blocks = [
        {"kind": "action", "text": f"{line}\nand more"},
        {"kind": "line", "who": "Vreni", "text": f"{line}\n\n{line}"},
        {"kind": "action", "text": line},
    ]
    screenplay = fountain(edition_of([version(blocks)]))
    said = bare(line)
    expected = [("action", f"{said}andmore"), ("cue", "VRENI"), ("line", said * 2), ("action", said)]
    assert by_screenplain(screenplay)[2:] == expected
    assert by_fountain_tools(screenplay)[2:] == expected


NAMES = ["R2-D2", "McCLANE", "23", "@x", "!x", "Örs", "第二", "A (V.O.)", "A) (B", "INT. MAN", "a ^", "x*y*"]


@pytest.mark.parametrize("who", NAMES)
def test_a_cue_is_a_cue_whatever_the_name(who: str) -> None:
    screenplay = fountain(edition_of([version([{"kind": "line", "who": who, "text": "Tea."}])]))
    expected = [("cue", bare(who.upper())), ("line", "Tea.")]
    assert by_screenplain(screenplay)[2:] == expected
    assert by_fountain_tools(screenplay)[2:] == expected


def test_plain_prose_and_names_are_left_as_they_are() -> None:
    screenplay = fountain(edition_of([version(BLOCKS)]))
    assert not re.search(r"[!@\\\u200b]", screenplay)


kinds = st.sampled_from(["action", "line", "parenthetical"])
block = st.fixed_dictionaries({"kind": kinds, "who": markup.filter(bare), "text": markup})


@examples(100)
@given(blocks=st.lists(block, min_size=1, max_size=5))
@example(blocks=[{"kind": "line", "who": "V", "text": "\t"}, {"kind": "action", "who": "", "text": " "}])
def test_any_text_is_read_as_what_it_was(blocks: list[dict[str, Any]]) -> None:
    screenplay = fountain(edition_of([version(blocks)]))
    for found in (by_screenplain(screenplay), by_fountain_tools(screenplay)):
        actions = "".join(text for kind, text in found[2:] if kind == "action")
        assert actions == "".join(bare(visible(each["text"])) for each in blocks if each["kind"] == "action")
        assert {kind for kind, _ in found[2:]} <= {"action", "cue", "aside", "line"}
        cues = [text for kind, text in found if kind == "cue"]
        speakers = [None if each["kind"] == "action" else each["who"] for each in blocks]
        changes = [new for old, new in pairwise([None, *speakers]) if new is not None and new != old]
        assert len(cues) == len(changes)


def test_hostile_names_titles_and_types_break_nothing_but_their_own_line() -> None:
    for text in ("x\nTitle: y\n\nINT. HOUSE", "/*", "[[", "]] x", "Title", "\x1b[31m\u202e"):
        screenplay = fountain(edition_of(everything_hostile(text), title=text))
        page = screenplain.parse(io.StringIO(screenplay)).title_page
        assert list(page) == ["Title", "Credit", "Author", "Source", "Draft date"]
        assert bare(page["Title"][0]) == bare(visible_line(text)).replace("*", "\\*".replace("\\", ""))
        assert [kind for kind, _ in by_screenplain(screenplay)].count("heading") == 1
        assert not {"\x1b", "\u202e"} & set(screenplay)


def test_versions_follow_each_other_and_a_production_has_the_one_that_stands() -> None:
    versions = [version([{"kind": "action", "text": f"Take {number}."}], number) for number in (1, 2, 3)]
    states = [
        SceneVersion(version=n, ref=each.ref, id=each.id, sender=each.sender, timestamp=each.timestamp, score=score)
        for n, (each, score) in enumerate(zip(versions, (0.5, 0.9, None), strict=True), 1)
    ]
    board = SceneState(scene=SCENE, title="The Other Fifty", versions=tuple(states))
    both = fountain(edition_of(versions, board))
    assert [text for kind, text in by_screenplain(both) if kind == "action"] == ["Take1.", "Take2.", "Take3."]
    assert by_screenplain(both).count(("page", "")) == 2
    assert f"[[{versions[1].ref} by scene_director, scored 0.90]]" in both

    other = said(9, "narration", {"text": "Elsewhere."}, scene="q2-s4")
    whole = fountain(edition_of([*versions, other], board))
    assert [text for kind, text in by_screenplain(whole) if kind == "action"] == ["Take2.", "Elsewhere."]
    final = Finalised(version=states[0], ref="x", sender="x", timestamp=versions[2].timestamp)
    decided = SceneState(scene=SCENE, versions=tuple(states), finalised=final)
    assert "Take 1." in fountain(edition_of([*versions, other], decided))
    alone = fountain(edition_of(versions, decided, final=states[0]))
    assert [text for kind, text in by_screenplain(alone) if kind in ("action", "section")] == ["Take1."]


def test_a_scene_without_a_version_is_made_of_its_narrations_and_dialogues() -> None:
    spoken = {"lines": [{"who": "Vreni", "text": "Tea.", "parenthetical": "(softly)"}, {"who": "Köbi", "text": "No."}]}
    messages = [
        said(1, "narration", {"text": "Rain."}, sender="narrator"),
        said(2, "note", {"text": "Shorter!"}),
        said(3, "dialogue", spoken, sender="dialogist"),
    ]
    screenplay = fountain(edition_of(messages))
    assert "Author: narrator, dialogist\n" in screenplay
    assert by_screenplain(screenplay)[1:] == [
        ("action", "Rain."),
        ("cue", "VRENI"),
        ("aside", "(softly)"),
        ("line", "Tea."),
        ("cue", "KÖBI"),
        ("line", "No."),
    ]


def test_nothing_that_is_script_is_no_screenplay() -> None:
    assert fountain(edition_of([said(1, "note", {"text": "x"}), said(2, "scene", {"blocks": "torn"})])) == ""
    assert known_id(1) not in fountain(edition_of([version(BLOCKS)]))
