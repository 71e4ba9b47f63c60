"""The page and the messages on it: every text is text, nothing is loaded, and everybody can read it."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from html.parser import HTMLParser
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import example, given

from mq_server.render.agents import HUES, hue_of, initials
from mq_server.render.chart import activity_chart
from mq_server.render.html import gauge, message_html, payload_html
from mq_server.render.markup import Html, element, join, text
from mq_server.render.page import page, stylesheet
from mq_server.render.text import visible, visible_line
from mq_server.scenes import OpenFeedback, SceneState, SceneVersion
from tests.rendering import HOSTILE, SCENE, edition_of, everything_hostile, markup, said
from tests.support import examples, known_id

AGENTS = [
    *("writer", "story_architect", "scene_director", "character_director", "narrator", "dialogist"),
    *("shot_composer", "quality_assessor", "continuity_service"),
]
ATTRIBUTES = {
    *("lang", "charset", "http-equiv", "content", "name", "id", "class", "href", "type", "autocomplete", "datetime"),
    *("role", "dir", "scope", "aria-label", "aria-hidden", "data-sender", "data-type", "viewbox"),
    *("preserveaspectratio", "x", "y", "x1", "x2", "y1", "y2", "width", "height", "rx", "text-anchor"),
}
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "a", "form", "nav", "h1", "h2", "h3", "ol", "ul", "li", "span"),
    *("fieldset", "legend", "div", "label", "input", "bdi", "button", "main", "header", "p", "figure", "figcaption"),
    *("section", "article", "time", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "details"),
    *("summary", "code", "strong", "br", "svg", "g", "rect", "line", "text"),
}


class Checker(HTMLParser):
    """What tags and attributes there are, as a tolerant reader sees them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        assert decl == "doctype html"

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")


def check_harmless(document: str) -> None:
    """Nothing but our own elements and attributes, and links within the page."""
    checker = Checker()
    checker.feed(document)
    checker.close()
    for tag, attributes in checker.tags:
        assert tag in ELEMENTS, tag
        assert set(attributes) <= ATTRIBUTES, attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert re.fullmatch(r"[a-z0-9 -]*", attributes.get("class") or ""), attributes
        assert re.fullmatch(r"[A-Za-z0-9-]*", attributes.get("id") or ""), attributes
    ids = [attributes["id"] for _, attributes in checker.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u200b]", document)
    for each in tree(document).iter():
        assert each.tag in ELEMENTS
        assert set(map(str.lower, each.attrib)) <= ATTRIBUTES


def tree(document: str) -> Element:
    """The page as a browser builds it."""
    found: Element = html5lib.parse(document, namespaceHTMLElements=False)
    for each in found.iter():
        each.tag = str(each.tag).rpartition("}")[2]
    return found


def all_text(node: Element) -> str:
    return "".join(node.itertext())


def by_class(node: Element, name: str) -> Iterator[Element]:
    return (each for each in node.iter() if name in each.attrib.get("class", "").split())


# --- building markup --------------------------------------------------------------------------------------------------


@examples(150)
@given(content=markup)
@example(content="\u2028\x85\r\n")
@example(content="&lt;b&gt;")
def test_text_is_text_in_elements_and_in_attributes(content: str) -> None:
    found = tree(element("p", content, title_="x", data_sender=content))
    (paragraph,) = [each for each in found.iter() if each.tag == "p"]
    assert list(paragraph) == []
    assert all_text(paragraph) == visible(content)
    assert set(paragraph.attrib) == {"title", "data-sender"}


def test_markup_is_built_of_markup_and_text() -> None:
    assert element("p", "a<b", element("br"), text("&"), class_="x", hidden=True, id=None) == (
        '<p class="x" hidden>a&lt;b<br>&amp;</p>'
    )
    assert join(["<", Html("<i>")], ", ") == "&lt;, <i>"


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_says_who_to_whom_what_when_and_what_it_answers() -> None:
    parent, answer = said(1, "query", {"text": "Why?"}), said(2, "answer", {"text": "So."}, reply_to=known_id(1))
    fragment = message_html(answer, {parent.id: parent}, depth=2, marks=("final",))
    (article,) = by_class(tree(fragment), "message")
    assert article.attrib["aria-label"] == "answer from scene_director"
    assert article.attrib["id"] == f"m-{answer.id}"
    assert {"depth-2", f"hue-{hue_of('scene_director')}"} <= set(article.attrib["class"].split())
    shown = " ".join(all_text(article).split())
    assert shown.startswith("SDscene_director to narrator answer final2026-09-21 14:13:22Z")
    assert f"answers {parent.ref}" in shown
    assert f'href="#m-{parent.id}"' in fragment
    assert 'datetime="2026-09-21T14:13:22+00:00"' in fragment


def test_payloads_have_the_form_of_their_type() -> None:
    def form(msg_type: str, **payload: object) -> str:
        return payload_html(said(1, msg_type, payload), {})

    prose = form("narration", text="Rain.\nSnow.\n\nNight.")
    assert '<p dir="auto">Rain.<br>Snow.</p><p dir="auto">Night.</p>' in prose
    spoken = form("dialogue", lines=[{"who": "Vreni", "text": "Tea.", "parenthetical": "softly", "beat": 1}])
    assert '<dt dir="auto">Vreni</dt>' in spoken
    assert "(softly) </span>Tea.</dd>" in spoken
    assert "beat" not in spoken
    table = form("shot_list", shots=[{"shot": "Close", "text": "The jar.", "lens": 50}])
    assert table.count("<tr>") == 2
    assert "lens" in table
    script = form("scene", version=2, blocks=[{"kind": "line", "who": "Vreni", "text": "Tea."}])
    assert 'class="cue" dir="auto">Vreni</p>' in script
    judged = form("score", of=known_id(1), score=0.93, rubric={"turn": 0.2}, notes="Good.")
    assert "0.93 of 1; 0.80 passes" in judged
    assert "turn" in judged
    assert 'class="gauge passed"' in judged
    folded = form("anything", a=1, b={"c": ["x" * 300]})
    assert "<dt>a</dt>" in folded
    assert "<details><summary>b<span" in folded
    assert "(empty)" in form("anything")


def test_paragraphs_of_hostile_depth_and_numbers_are_shown() -> None:
    deep: object = "x" * 300
    for _ in range(90):
        deep = {"k": deep}
    assert "x" * 300 in payload_html(said(1, "anything", {"k": deep, "n": [2**53, -1.5, None, True]}), {})
    assert "9007199254740992, -1.5" in payload_html(said(1, "anything", {"n": [2**53, -1.5]}), {})
    assert "7.00 of 1" in gauge(7)


# --- the page ---------------------------------------------------------------------------------------------------------


def small_page() -> str:
    messages = [
        said(1, "brief", {"title": "A start", "text": "Two women."}, sender="writer"),
        said(2, "scene", {"version": 1, "blocks": [{"kind": "action", "text": "Rain."}]}, reply_to=known_id(1)),
        said(3, "note", {"text": "Why?"}, sender="writer", scene=None),
        said(4, "note", {"text": "So."}, sender="narrator", scene=None, reply_to=known_id(3)),
        said(5, "note", {"text": "Else."}, sender="writer", scene=None),
        said(6, "note", {"text": "So."}, sender="narrator", scene=None, reply_to=known_id(5)),
    ]
    second = messages[1]
    version = SceneVersion(
        version=1, ref=second.ref, id=second.id, sender=second.sender, timestamp=second.timestamp, score=0.7
    )
    feedback = OpenFeedback(ref="x", id=known_id(9), sender="writer", timestamp=second.timestamp, text="Shorter.")
    board = SceneState(scene=SCENE, title="The Other Fifty", versions=(version,), open_feedback=(feedback,))
    return page(edition_of(messages, board))


def test_the_page_has_contents_filters_a_chart_and_the_scenes() -> None:
    document = small_page()
    check_harmless(document)
    root = tree(document)
    (contents,) = (each for each in root.iter() if each.tag == "nav")
    words = " ".join(all_text(contents).split())
    assert words.startswith("Contentsq2-s3 The Other Fifty 2version 1 0.70, bestWithout a scene 42 threads")
    links = [each.attrib["href"] for each in root.iter() if each.tag == "a"]
    ids = {each.attrib["id"] for each in root.iter() if "id" in each.attrib}
    assert {link.removeprefix("#") for link in links} <= ids
    assert [all_text(each) for each in root.iter() if each.tag == "legend"] == ["Agents", "Types"]
    (chart,) = by_class(root, "chart")
    assert chart.attrib["role"] == "img"
    (opening,) = by_class(root, "open")
    assert "Shorter." in all_text(opening)


def test_the_policy_allows_the_style_sheet_and_nothing_else() -> None:
    document = small_page()
    (style,) = (each for each in tree(document).iter() if each.tag == "style")
    digest = b64encode(sha256((style.text or "").encode()).digest()).decode()
    policy = f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}&#x27;; base-uri"
    assert policy in document
    assert not re.search(r"<script|<link|<img|<iframe|\son\w+=|\sstyle=|url\(|@import|https?:", document)


def test_a_checked_box_hides_what_it_does_not_name() -> None:
    document = small_page()
    root = tree(document)
    boxes = {each.attrib["id"]: each for each in root.iter() if each.tag == "input"}
    rules = re.findall(r"^body:has\(\.(only-[at]):checked\):not\(:has\(#(\S+):checked\)\) \.(\w+)\{", document, re.M)
    assert {box for _, box, _ in rules} == set(boxes)
    for row, box, name in rules:
        assert boxes[box].attrib["class"] == row
        assert any(by_class(root, name))
    senders = {name: {each.attrib["data-sender"] for each in by_class(root, name)} for row, _, name in rules}
    assert sorted(map(sorted, (found for name, found in senders.items() if name.startswith("a")))) == [
        ["narrator"],
        ["scene_director"],
        ["writer"],
    ]


def test_many_agents_share_a_box() -> None:
    messages = [said(number, "note", {}, sender=f"agent_{number}") for number in range(1, 60)]
    document = page(edition_of(messages))
    assert document.count('class="only-a"') == 40
    assert "20 others" in document


@pytest.mark.parametrize("content", [HOSTILE, "a1 t2 message", "'\"><svg onload=alert(1)>", "]]></style>", "\u2028x"])
def test_hostile_text_anywhere_is_text(content: str) -> None:
    document = page(edition_of(everything_hostile(content), title=content))
    check_harmless(document)
    assert all_text(tree(document)).count(visible_line(content)) > 20


@examples(40)
@given(content=markup)
def test_any_text_anywhere_is_text(content: str) -> None:
    check_harmless(page(edition_of(everything_hostile(content), title=content)))


def test_a_final_version_is_a_page_of_script_alone() -> None:
    message = said(2, "scene", {"version": 1, "blocks": [{"kind": "action", "text": "Rain."}]})
    about = {"ref": message.ref, "id": message.id, "sender": "x", "timestamp": message.timestamp}
    version = SceneVersion(version=1, score=0.9, **about)
    breakdown = said(1, "scene_breakdown", {"setting": "INT. ROOM", "beats": ["x"]})
    document = page(edition_of([breakdown, message], SceneState(scene=SCENE, versions=(version,)), final=version))
    check_harmless(document)
    words = " ".join(all_text(next(each for each in tree(document).iter() if each.tag == "main")).split())
    assert words == f"A titlescene q2-s3 · version 1, final, 0.90 · {message.ref}INT. ROOMversion 1Rain."


def test_an_empty_production_is_a_page_too() -> None:
    document = page(edition_of([]))
    check_harmless(document)
    assert "There are no messages." in document


# --- colours and the chart --------------------------------------------------------------------------------------------


def test_agents_of_a_production_have_colours_and_initials_of_their_own() -> None:
    hues = sorted(map(hue_of, AGENTS))
    gaps = [(after - before) % HUES for before, after in zip(hues, hues[1:] + hues[:1], strict=True)]
    assert min(gaps) >= 2
    assert len(set(map(initials, AGENTS))) == len(AGENTS)
    odd = {"scene_director": "SD", "narrator": "Na", "": "", "_": "_", "\u202e": "\\u"}
    assert {name: initials(name) for name in odd} == odd
    assert all(f".hue-{number} {{" in stylesheet("message.css") for number in range(HUES))


def linear(lightness: float, chroma: float, hue: float) -> tuple[float, float, float]:
    """oklch as linear RGB (bottosson.github.io/posts/oklab)."""
    from math import cos, pi, sin

    a, b = chroma * cos(hue * pi / 180), chroma * sin(hue * pi / 180)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short
    return tuple(min(max(value, 0), 1) for value in (red, green, blue))  # type: ignore[return-value]


def from_hex(colour: str) -> tuple[float, float, float]:
    values = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return tuple(v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values)  # type: ignore[return-value]


def contrast(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    weights = (0.2126, 0.7152, 0.0722)
    lights = sorted(sum(w * v for w, v in zip(weights, each, strict=True)) + 0.05 for each in (one, other))
    return lights[1] / lights[0]


def test_every_colour_of_text_can_be_read_in_both_themes() -> None:
    sheet = stylesheet("message.css")
    themes = [dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", sheet, re.S)]
    assert len(themes) == 2
    agents = [tuple(map(float, each)) for each in re.findall(r"\.agent \{[^}]*?oklch\((\S+) (\S+) var", sheet)]
    avatars = re.findall(
        r"\.avatar \{[^}]*?background: oklch\((\S+) (\S+) var[^}]*?\bcolor: oklch\((\S+) (\S+) var", sheet, re.S
    )
    for theme, (lightness, chroma), avatar in zip(themes, agents, avatars, strict=True):
        paper = [from_hex(theme[name]) for name in ("paper", "raised")]
        for back in paper:
            for name in ("ink", "faint", "accent", "good", "bad"):
                assert contrast(from_hex(theme[name]), back) >= 4.5, (theme, name)
            for hue in range(HUES):
                assert contrast(linear(lightness, chroma, hue * 15), back) >= 4.5, hue
        for hue in range(HUES):
            back_l, back_c, ink_l, ink_c = map(float, avatar)
            assert contrast(linear(back_l, back_c, hue * 15), linear(ink_l, ink_c, hue * 15)) >= 4.5, hue


def test_the_chart_stacks_messages_by_agent_in_bars_of_equal_time() -> None:
    messages = [said(number, "note", {}, sender=sender) for number, sender in ((1, "a"), (1, "b"), (2, "a"), (61, "a"))]
    chart = tree(activity_chart(messages))
    label = next(each for each in chart.iter() if each.tag == "title")
    assert label.text == "4 messages over time, in bars of 2 seconds, by agent"
    bars = [[all_text(rect) for rect in each] for each in chart.iter() if each.tag == "g"]
    assert bars == [["14:13:20: a, 1", "14:13:20: b, 1"], ["14:13:22: a, 1"], ["14:14:20: a, 1"]]
    heights = [float(each.attrib["height"]) for each in chart.iter() if each.tag == "rect"]
    assert len(set(heights)) == 1


@pytest.mark.parametrize("span_s", [0, 59, 3600, 86_400 * 365, 86_400 * 365 * 200])
def test_the_chart_has_at_most_sixty_bars_over_any_time(span_s: int) -> None:
    messages = [said(1, "note", {}), said(1 + span_s, "note", {}), said(1 + span_s // 2, "note", {})]
    chart = activity_chart(messages)
    check_harmless(f"<!doctype html>{chart}")
    assert chart.count("<g>") <= 3
    assert all(0 <= float(x) <= 720 for x in re.findall(r'\bx="([^"]+)"', chart))
