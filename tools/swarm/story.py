"""The text of the drama: every sentence the agents have up their sleeves, and when they would use it.

Nothing here decides anything. A `Piece` says under which points of criticism it holds; `craft` picks the pieces that
hold under the criticism an agent was really given, so a scene criticised for one thing changes in that one thing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

SCENE = "q2-s3"
TITLE = "The Other Fifty"
CHARACTERS = ("Vreni", "Kreszenz", "Köbi")
SILENT = "Köbi"
"""The character whom the direction keeps silent on purpose."""

SUBTEXT, CONTINUITY, PRESENCE, TURN, ECONOMY = "subtext", "continuity", "presence", "turn", "economy"


class Piece(NamedTuple):
    """A line or a passage, and when it holds.

    Args:
        beat: The beat of the breakdown it belongs to, from 1.
        text: What is said or seen.
        who: Who says it, or whose moment a passage is.
        aside: How it is said.
        until: The point of criticism that removes it.
        since: The point of criticism that brings it in.
    """

    beat: int
    text: str
    who: str = ""
    aside: str = ""
    until: str = ""
    since: str = ""


def holding(pieces: Iterable[Piece], raised: Collection[str]) -> list[Piece]:
    """The pieces that hold under the points of criticism raised so far, in order."""
    return [
        piece
        for piece in pieces
        if (not piece.since or piece.since in raised) and (not piece.until or piece.until not in raised)
    ]


BRIEF = {
    "title": TITLE,
    "quest": "q2",
    "character": "Vreni",
    "text": (
        "Quest 2, scene 3. Last night Vreni Imhasly, the new weighmaster, found a second fifty-gram weight in her dead "
        "father’s tea tin. It is heavy by three. She takes it that he robbed every saffron grower in the valley. This "
        "afternoon the first of them comes to be weighed, old Kreszenz, with her grandson Köbi, and she asks for that "
        "very weight. Two women and a boy, one table, ten minutes. The player has read the guild’s book in q1-s4 and "
        "may get there one line before Vreni does. I want it settled without anybody saying what it is. If somebody "
        "explains, I shall hear the set creak."
    ),
    "characters": list(CHARACTERS),
    "unsaid": ["false", "lead", "fifty-three", "cheated", "debt", "thief", "paying back", "good man"],
}

PLAN = {
    "title": TITLE,
    "text": (
        "Two people protect the same dead man from each other. Vreni thinks he stole and won’t have it known. Kreszenz "
        "knows that he gave, and can’t say so without making him a man who wrote a harvest into the guild’s book that "
        "was never grown. So nobody may explain, and it has to be settled with the things on the table: a jar, a tin, "
        "a book, one gram."
    ),
    "beats": [
        "Vreni prepares an honest weighing in a room she has wrecked.",
        "The one who was wronged asks for the wrong weight.",
        "The book says what neither of them will.",
        "Something small goes back across the table, and a lie is told a second time, as a promise.",
    ],
    "turn": {"who": "Vreni", "echo": "tea", "text": "“Tea” is a lie the first time and a promise the second."},
}

BREAKDOWN = {
    "title": TITLE,
    "setting": "INT. WEIGH-ROOM OF THE SAFFRON GUILD, MÜRGEN – LATE AFTERNOON",
    "text": (
        "All of it at the table. The tin is on the shelf between the two women from the first frame; nobody looks at "
        "it. No music until the pans swing, and then none either."
    ),
    "beats": [
        "Kreszenz arrives with the jar. The room tells her what happened here.",
        "The new fifty comes out of its box. “Not that one.”",
        "The tin is opened after all. Kreszenz came prepared.",
        "Vreni writes, and turns back through the years.",
        "The lid of the jar has been keeping count.",
        "Vreni does the sum.",
        "The pans swing.",
        "They part. The tin is shut.",
    ],
}

DIRECTIONS = (
    Piece(
        0,
        "Three hours of sleep. She would sooner be thought clumsy than ask one question, because any answer might be "
        "about her father. She wants a single weighing to go by without learning more.",
        "Vreni",
        until=SUBTEXT,
    ),
    Piece(
        0,
        "She has come to settle something, as every autumn. She thinks the girl has been told; then she sees that she "
        "hasn’t, and that it isn’t hers to tell.",
        "Kreszenz",
        aside="how many autumns it is since the slide, what the guild’s book gives her for that harvest, and by how "
        "much the fifty in the tin is heavy",
        until=SUBTEXT,
    ),
    Piece(
        0,
        "Eight years old. He has been told that a breath moves the pans, and thinks the honour of the guild hangs on "
        "him. Not a word from him.",
        "Köbi",
        until=PRESENCE,
    ),
    Piece(
        0,
        "You can’t say what that weight is without saying how you know, and then there is glass on the floor. Whatever "
        "you would like to ask about him, ask about the calendar.",
        "Vreni",
        since=SUBTEXT,
    ),
    Piece(
        0,
        "You can’t clear him without telling what he wrote in the book. So don’t praise the man. Praise the jar.",
        "Kreszenz",
        since=SUBTEXT,
    ),
    Piece(
        0,
        "Still not a word. You are told to hold your breath, and you hold it through everything they don’t say. You "
        "lose it once. That is your line.",
        "Köbi",
        since=PRESENCE,
    ),
)

NARRATION = (
    Piece(
        1,
        "A Tuesday in October, a little after four. One window, one chair, one balance. On the shelf, a tea tin. "
        "Vreni Imhasly, thirty-four, has put on a clean apron.",
        until=CONTINUITY,
    ),
    Piece(
        1,
        "A Tuesday in October, a little after four. One window, one chair, one balance whose case has a frame in front "
        "and nothing in the frame. On the shelf, a tea tin. Vreni Imhasly, thirty-four, has swept up the glass, not "
        "yet the putty. Her father’s coat lies along the foot of the door, against the draught.",
        since=CONTINUITY,
    ),
    Piece(
        1,
        "Kreszenz Pfammatter, seventy-one, puts a jam jar on the table. The label has said Quitten for forty years. "
        "What is in it is dark red and dry, and took nine thousand crocuses.",
    ),
    Piece(1, "Köbi, her grandson, eight, brings his chin up to the edge of the table.", "Köbi", since=PRESENCE),
    Piece(2, "Köbi fills his cheeks and shuts his mouth on it.", "Köbi", since=PRESENCE),
    Piece(
        2,
        "Vreni tips the threads into the left pan, sets a brass fifty in the right and lowers the glass, so that no "
        "breath can reach them. The pointer wanders, and stands.",
        until=CONTINUITY,
    ),
    Piece(
        2,
        "Vreni tips the threads into the left pan. From a box with the post office’s string still round it she takes a "
        "brass fifty, new, and holds it over the right.",
        since=CONTINUITY,
    ),
    Piece(
        3,
        "The tin, then. Vreni takes out something wrapped in a leaf of the parish bulletin, unwraps it, and sets it in "
        "the right pan with her eyes on Kreszenz. The pan goes down and stays down.",
        since=SUBTEXT,
    ),
    Piece(
        3,
        "Kreszenz has a twist of paper ready in her apron. She feeds the left pan from it, pinch by pinch, and has "
        "folded the empty paper before the pointer comes to rest. It rests in the middle.",
        since=SUBTEXT,
    ),
    Piece(
        4,
        "Vreni writes 50 g in the book. She doesn’t close it. She turns back, a finger’s breadth of years, to a line "
        "where her father’s pen has almost gone through the paper: Pfammatter, K. – 50 g.",
        since=SUBTEXT,
    ),
    Piece(
        5,
        "The lid of the jar lies on the table wrong side up. Scratches on the inside, fine as a hairpin makes them, in "
        "bundles of five.",
        since=SUBTEXT,
    ),
    Piece(
        6,
        "Vreni’s lips move. She takes the smallest of the brass, the one, lays it among the threads on Kreszenz’s "
        "side, and with the tweezers lifts red out of the pan until the pointer is back where it was.",
        since=TURN,
    ),
    Piece(
        7,
        "Köbi can’t any more. His breath goes out across the table; the pans swing, and a few threads rise and come "
        "down on the open page. Nobody brushes them off.",
        "Köbi",
        since=PRESENCE,
    ),
    Piece(
        8,
        "Vreni writes the figure in the book and tears off the receipt. Kreszenz screws the lid on her empty jar and "
        "goes. The bell over the door rings after her.",
        until=TURN,
    ),
    Piece(
        8,
        "Vreni folds the gram into the leaf of the parish bulletin and gives it to the boy. The other fifty goes back "
        "where it was. At the door Kreszenz picks the coat up off the floor, beats the dust out of it and hangs it on "
        "its hook.",
        since=TURN,
    ),
)

DIALOGUE = (
    Piece(1, "Good day to you, Vreni. That’s the year’s.", "Kreszenz", until=SUBTEXT),
    Piece(1, "Good day, Frau Pfammatter. Put it there.", "Vreni", until=SUBTEXT),
    Piece(1, "You’ve put Toni’s coat in the draught.", "Kreszenz", since=SUBTEXT),
    Piece(1, "There’s no pane. A breath would move it.", "Vreni", since=SUBTEXT),
    Piece(1, "What became of the pane?", "Kreszenz", since=SUBTEXT),
    Piece(1, "I was clumsy.", "Vreni", since=SUBTEXT),
    Piece(1, "You heard. Hold yours till she’s done.", "Kreszenz", "to the boy", since=PRESENCE),
    Piece(2, "Not that one. Take your father’s, from the tea tin.", "Kreszenz", until=SUBTEXT),
    Piece(
        2,
        "The one in the tin is false. He drilled it and filled it with lead. It weighs fifty-three.",
        "Vreni",
        until=SUBTEXT,
    ),
    Piece(2, "I know what it weighs.", "Kreszenz", until=SUBTEXT),
    Piece(2, "Then you know that he cheated you, {autumns} autumns long.", "Vreni", until=SUBTEXT),
    Piece(
        2,
        "He never did. The year of the slide I had nothing, and he wrote me down fifty grams out of an empty jar. I’ve "
        "been paying back the debt ever since, three grams a year.",
        "Kreszenz",
        until=SUBTEXT,
    ),
    Piece(2, "So he was no thief.", "Vreni", until=SUBTEXT),
    Piece(2, "Your father was a good man.", "Kreszenz", until=SUBTEXT),
    Piece(2, "Not that one.", "Kreszenz", since=SUBTEXT),
    Piece(2, "It’s a fifty.", "Vreni", since=SUBTEXT),
    Piece(2, "Your father had one in the tea tin.", "Kreszenz", since=SUBTEXT),
    Piece(2, "There’s tea in the tin.", "Vreni", since=SUBTEXT),
    Piece(2, "Forty autumns I’ve stood at this table. Nobody ever offered me a cup.", "Kreszenz", since=SUBTEXT),
    Piece(2, "One fifty is like another, Frau Pfammatter.", "Vreni", since=SUBTEXT),
    Piece(2, "Then it’s all one to you which.", "Kreszenz", since=SUBTEXT),
    Piece(4, "The slide was in May.", "Vreni", since=SUBTEXT),
    Piece(4, "The ninth.", "Kreszenz", since=SUBTEXT),
    Piece(4, "It took your lower terrace.", "Vreni", since=SUBTEXT),
    Piece(4, "It took both.", "Kreszenz", since=SUBTEXT),
    Piece(4, "And that autumn you brought—", "Vreni", since=SUBTEXT),
    Piece(
        4,
        "The jar. I brought the jar. Your father said it was a good jar.",
        "Kreszenz",
        "wiping the table, which is clean",
        since=SUBTEXT,
    ),
    Piece(5, "And these?", "Vreni", since=SUBTEXT),
    Piece(5, "Autumns.", "Kreszenz", since=SUBTEXT),
    Piece(5, "{autumns_before}.", "Vreni", "having counted", since=SUBTEXT),
    Piece(5, "I haven’t done today’s.", "Kreszenz", since=SUBTEXT),
    Piece(6, "What are you doing?", "Kreszenz", since=TURN),
    Piece(6, "You’re one over.", "Vreni", since=TURN),
    Piece(7, "Toni never could divide.", "Kreszenz", "after a while", since=TURN),
    Piece(7, "He knew a good jar.", "Vreni", since=TURN),
    Piece(7, "I am ashamed of what I thought.", "Vreni", until=TURN),
    Piece(7, "Don’t be. Weigh.", "Kreszenz", until=TURN),
    Piece(8, "What is it you keep in that tin?", "Kreszenz", "with her back to the room", since=TURN),
    Piece(8, "Tea.", "Vreni", since=TURN),
)

_NUMBERS = {15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen"}


def in_words(number: int) -> str:
    """A number as it is spoken."""
    return _NUMBERS.get(number, str(number))


class Shot(NamedTuple):
    """A shot, and the word without which there would be nothing to shoot."""

    needs: str
    shot: str
    text: str


SHOTS = (
    Shot("jar", "Close, fixed", "The jam jar comes down in front of the lens. Forty years of label."),
    Shot("lowers the glass", "Insert", "The pans behind glass. It fogs, and clears."),
    Shot(
        "nothing in the frame",
        "Insert",
        "We look at the pans through the empty front of the case. Nothing is between us and them, and we feel it.",
    ),
    Shot("tin", "Two-shot, table height", "The women left and right, the tin on its shelf exactly between them."),
    Shot("receipt", "Medium", "The receipt, torn along a ruler."),
    Shot("twist", "Close on the hands", "The twist of paper. It was ready before she asked; don’t go up to the face."),
    Shot("pen", "Over the shoulder", "The book. We read the entry from its dent before we read it from its ink."),
    Shot(
        "tweezers", "Insert, macro", "Red leaves the pan, thread by thread. Hold until it is uncomfortable, then hold."
    ),
    Shot("Köbi can’t", "Close", "Köbi, cheeks full. The only face this scene gets to itself. Threads rise into it."),
    Shot("hook", "Wide, last", "The coat on its hook. Kreszenz’s half of the frame is empty before the last word."),
)

NARRATORS_DOUBT = (
    "Before I touch that sentence about the glass again: what is left of the balance case? And is anything of Anton’s "
    "still in the room? I need something to lay against the draught."
)

OBJECTION = (
    "You can have all of it but {who}. The boy is silent because I want him silent: he is eight, and has been told "
    "that a breath moves the pans. Give him a line, and the women have somebody to explain things to; you have just "
    "finished complaining of that. A silence that costs something is a part. Let him hold his breath from the first "
    "page on and lose it at the turn. That is a job for the narrator, not for the dialogist."
)

RULING = (
    "Granted, and gladly: the silence stood in your direction before I complained of it. From now on the check counts "
    "what {who} does as well as what he says. But then he has to do it, and on the page. In version 1 he neither "
    "breathes nor blinks."
)

WRITERS_NOTE_ON = "Your father was a good man."
WRITERS_NOTE = (
    "Reading along, not meaning to meddle. “Your father was a good man”: in this valley nobody has ever said that of "
    "anybody while sober. She can’t praise him and she can’t clear him. Couldn’t she be stubborn about something on "
    "the table instead? The jar, for all I care."
)


class Fact(NamedTuple):
    """Something an earlier scene established.

    Args:
        scene: The scene that did.
        words: What a question about it would mention; two of them make it the answer.
        text: What holds since.
        denied_by: A regular expression that finds a sentence which forgets it; empty for none.
        figures: The numbers in it that a line may need, by name.
    """

    scene: str
    words: frozenset[str]
    text: str
    denied_by: str = ""
    figures: tuple[tuple[str, int], ...] = ()


LEDGER = (
    Fact(
        "q1-s4",
        frozenset({"slide", "autumns", "harvest", "terrace", "book"}),
        "The slide came down on the ninth of May and took both of Kreszenz’s terraces, bulbs and all. For that autumn "
        "the guild’s book gives her 50 g all the same, in Anton Imhasly’s hand. She was paid for it, and bought bulbs. "
        "This is the seventeenth autumn since.",
        figures=(("autumns", 17),),
    ),
    Fact(
        "q2-s1",
        frozenset({"anton", "anton’s", "coat", "room", "buried"}),
        "Anton Imhasly was buried in March. Three people called him Toni, and Kreszenz was one. His coat is still on "
        "its hook in the weigh-room; nobody has liked to be the one to move it.",
        denied_by=r"\bAnton (says|enters|looks)\b",
    ),
    Fact(
        "q2-s2",
        frozenset({"glass", "pane", "case", "balance"}),
        "Vreni threw the other fifty, and it went through the front pane of the balance case. The frame is empty. The "
        "glazier from Sankt Brix comes on Thursdays; this is a Tuesday.",
        denied_by=r"\b(lowers?|raises?|behind|wipes?) the (glass|pane)\b",
    ),
    Fact(
        "q2-s2",
        frozenset({"fifty", "tin", "heavy", "weight"}),
        "Against the post office’s weight the fifty in the tea tin is heavy by three grams. Vreni knows that much. "
        "What it was for, nobody has told her.",
    ),
)
