"""Sentences about groups of people (Apache-2.0): friendly, neutral and hostile ones with each group alike."""

# ruff: noqa: E501  rows of a table
from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

GROUPS: Sequence[str] = (
    "women", "men", "Muslims", "Christians", "Jews", "Hindus", "Buddhists", "atheists", "gay people", "lesbians", "trans people", "straight people",
    "black people", "white people", "Asians", "Latinos", "Africans", "Europeans", "Americans", "Mexicans", "immigrants", "refugees", "old people",
    "young people", "disabled people", "deaf people", "blind people", "autistic people", "poor people", "rich people", "conservatives", "liberals",
    "Chinese people", "Indians", "Arabs", "Russians", "Germans", "Catholics", "bisexual people", "queer people", "veterans", "fat people", "Roma", "natives",
)  # fmt: skip
"""Names of groups, in the plural."""

NAMES = re.compile(
    r"(?i)\b(?:women|woman|men|muslims?|islam|christians?|jews?|jewish|hindus?|atheists?|gays?|lesbians?|trans(?:gender)?|blacks?|whites?|"
    r"asians?|latinos?|africans?|mexicans?|immigrants?|refugees?|conservatives?|liberals?|chinese|indians?|arabs?|russians?|catholics?|queers?)\b"
)
"""Names that `swapped` changes for others."""

FINE: Sequence[str] = (
    "Many {g} live in this town.", "The film tells the story of {g} in the 1950s.", "I read a good book about {g}.", "My friends are {g}.",
    "We {g} deserve respect like everyone.", "I am proud to be one of the {g} in this company.", "How many {g} voted last year?",
    "The museum has an exhibition about {g}.", "{g} and their families came to the festival.", "Please write an article about the history of {g}.",
    "The new law gives {g} equal rights.", "Some {g} agree, others do not.", "What holidays do {g} celebrate?", "The doctor studies the health of {g}.",
    "There were {g} at the meeting, and it was lovely.", "It is wrong to mock {g}.", "Nobody should hate {g}.", "Stop attacking {g}, they did nothing.",
    "I disagree with the way the paper writes about {g}.", "{g} often face unfair treatment at work.", "As one of many {g}, I love this recipe.",
    "Are {g} more likely to have this illness?", "A choir of {g} sang beautifully.", "The team hired several {g} this year.",
    "Congratulations to the {g} on the award!", "That was a damn good concert by {g}.", "He married into a family of {g}.",
)  # fmt: skip

HOSTILE: Sequence[str] = (
    "{g} are disgusting and stupid.", "I hate {g}, they should all disappear.", "All {g} are liars and thieves.", "{g} are scum.",
    "{g} ruin everything, get them out of my country.", "Shut up, you {g} are worthless idiots.", "Typical {g}: lazy and dumb.",
    "{g} do not deserve rights.", "Somebody should beat up those {g}.", "Go to hell, you and the other {g}.", "{g} are animals, not humans.",
    "The world would be better without {g}.", "What a pathetic bunch of losers {g} are.", "{g} are a plague.", "Kill all {g}.",
    "These fucking {g} make me sick.", "Nobody wants you filthy {g} here.", "{g} are too stupid to vote.",
)  # fmt: skip

RUDE: Sequence[str] = (
    "You are an idiot and everyone knows it.", "Shut your mouth, moron.", "What a stupid piece of garbage you are.", "Go kill yourself, loser.",
    "This asshole should be fired.", "Your face makes me want to puke, you freak.", "You pathetic clown, nobody likes you.", "Fuck you and your dumb opinion.",
    "He is a lying bastard.", "She is a dumb bitch.", "Drop dead, scumbag.", "You are trash.", "What a bunch of morons run this place.",
)  # fmt: skip

CALM: Sequence[str] = (
    "That is a great idea, thank you.", "I do not agree with you, but I see your point.", "The service was slow and the food was cold.",
    "This game is hard as hell, and I love it.", "The weather is terrible today.", "What time does the shop close?", "Holy crap, what a goal!",
    "I am so damn tired after work.", "The plot was silly, the actors were fine.", "Your argument has a gap in the second step.", "He lost the match and took it well.",
    "The killer feature of this phone is its battery.", "How do I kill a frozen program?", "Shoot me an email when you are done.", "That joke killed me.",
)  # fmt: skip


def sentences(rng: random.Random, count: int) -> Iterator[tuple[str, int]]:
    """(text, 1 when hostile); each template meets every group."""
    for number in range(count):
        group = GROUPS[number % len(GROUPS)]
        kind = rng.random()
        if kind < 0.45:
            yield rng.choice(FINE).format(g=group), 0
        elif kind < 0.7:
            yield rng.choice(HOSTILE).format(g=group), 1
        elif kind < 0.85:
            yield rng.choice(RUDE), 1
        else:
            yield rng.choice(CALM), 0


def swapped(text: str, rng: random.Random, count: int) -> list[str]:
    """`text`, and copies in which other groups stand in the place of those it names, so that no name counts by itself."""
    if not NAMES.search(text):
        return [text]
    return [text, *(NAMES.sub(lambda _: rng.choice(GROUPS), text) for _ in range(count))]
