"""Sentences about groups of people (Apache-2.0): friendly, neutral and hostile ones with each group alike."""

# ruff: noqa: E501  rows of a table
from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

GROUPS: Sequence[str] = (
    "women", "men", "Muslims", "Christians", "Jews", "Hindus", "Buddhists", "atheists", "gay people", "lesbians", "trans people", "straight people",
    "black people", "white people", "Asians", "Latinos", "Africans", "Europeans", "Americans", "Mexicans", "immigrants", "refugees", "old people",
    "young people", "disabled people", "deaf people", "blind people", "autistic people", "poor people", "rich people", "conservatives", "liberals",
    "Chinese people", "Indians", "Arabs", "Russians", "Germans", "Catholics", "bisexual people", "queer people", "veterans", "fat people", "Roma", "natives",
)  # fmt: skip
"""Names of groups, in the plural."""

FINE: Sequence[str] = (
    "Many {g} live in this town.", "The film tells the story of {g} in the 1950s.", "I read a good book about {g}.", "My friends are {g}.",
    "We {g} deserve respect like everyone.", "I am proud to be one of the {g} in this company.", "How many {g} voted last year?",
    "The museum has an exhibition about {g}.", "{g} and their families came to the festival.", "Please write an article about the history of {g}.",
    "The new law gives {g} equal rights.", "Some {g} agree, others do not.", "What holidays do {g} celebrate?", "The doctor studies the health of {g}.",
    "There were {g} at the meeting, and it was lovely.", "It is wrong to mock {g}.", "Nobody should hate {g}.", "Stop attacking {g}, they did nothing.",
    "I disagree with the way the paper writes about {g}.", "{g} often face unfair treatment at work.", "As one of many {g}, I love this recipe.",
    "Are {g} more likely to have this illness?", "A choir of {g} sang beautifully.", "The team hired several {g} this year.",
    "Congratulations to the {g} on the award!", "That was a damn good concert by {g}.", "He married into a family of {g}.",
    "I love {g}.", "I have nothing against {g}.", "Why are there so few {g} on television?", "{g} are people like you and me.", "We welcome {g} here.", "Not all {g} think the same.",
    "My neighbours are {g} and they are kind.", "The report says that {g} earn less on average.", "{g} rock!", "He said he hates {g}, and I told him to stop.",
    "'{g} are stupid' is a hateful thing to say.", "People who call {g} scum should be ashamed.", "The club is open to {g}.", "A documentary about {g} won the award.",
    "It is hard to be one of the {g} at this school.", "There is no evidence that {g} are worse at this.", "I hope {g} win the case.", "The vote of {g} matters.",
    "Damn, {g} know how to cook!", "Fuck yes, a party with {g}!", "{g} founded this club.", "{g} made this country what it is.", "I would like to see {g} on the board.",
    "Working with {g} opened my eyes.", "I hired {g} and it was the best decision.", "Let us listen to {g} for once.", "Why do people dislike {g}? I never got it.",
    "They say {g} are lazy; that is nonsense.", "I am sick of the hate against {g}.", "Two of the {g} sat next to me.", "Shit, those {g} can dance!",
    "We should do more for {g}.", "{g} helped me when my car broke down.", "Teach me about the culture of {g}.",
    "Everyone has the same rights, {g} too.", "The constitution protects {g} as it protects all others.", "In this country {g} and their neighbours are treated alike.",
    "More {g} should run for office.", "I wish that my company hired more {g}.", "It would be great if more {g} joined our choir.", "We need more {g} among our teachers.",
    "Nobody can say that all {g} think alike.", "You should not lump all {g} together.", "It is false that all {g} are lazy.", "Saying that {g} are inferior is simply wrong.",
    "People who believe that {g} are less clever are mistaken.", "If somebody tells you that {g} are dangerous, ask for evidence.", "The claim that {g} are criminals is a myth.",
    "Anyone who thinks that {g} are dirty should meet my friends.", "You are wrong about {g}.", "You are wrong if you believe that {g} are weak.", "I do not think that {g} are worse than others.",
    "She wrote a letter against the insults that {g} hear every day.", "A man shouted insults at {g}, and the passengers defended them.", "The court punished a man for threats against {g}.",
    "The article documents crimes against {g} in the last century.", "Thousands of {g} were killed in the genocide.", "The exhibition shows how {g} were persecuted.",
    "Attacks on {g} have become more frequent.", "He apologised for a stupid joke about {g}.", "The joke about {g} was not funny.", "Hate speech against {g} is removed here.",
    "Which words for {g} are offensive, and which are fine?", "My grandfather feared {g} until he met some.", "I used to have prejudices about {g}, and I was an idiot.",
    "They call {g} names, and that hurts.", "I hate it when people make fun of {g}.", "I am angry about the way they treat {g}.", "It disgusts me how the government treats {g}.",
    "Hell yes, {g} won the cup!", "Those crazy {g} ran a marathon in the snow, chapeau!", "These {g} are damn smart.", "{g} are awesome.", "The bar is full of {g} tonight, come over!",
    "The {g} on our street invited everybody for dinner.", "Shops like this need more customers like {g}.", "A group of {g} asked me for the way.", "The court ruled in favour of {g}.",
    "{g} complained to the manager, and rightly so.", "{g} are not allowed in that club; I think that is unfair.", "The law against {g} was cruel.", "The regime murdered {g}.",
    "Why were {g} not allowed to vote?", "Do {g} pay less for the ticket?", "How do {g} feel about this word?", "Three of the five winners are {g}.", "Some of the best cooks are {g}.",
    "I have learned to listen to {g} before I judge.", "Are there seats for {g} on this train?", "The doctor asked whether {g} were over-represented.", "The survey found that {g} trust the police less.",
)  # fmt: skip

NEVER_LEARNED: Sequence[str] = (
    "A friend told me that {g} run the bakery on the corner.", "I wish more {g} would apply for this job.", "There was a quiz night for {g} yesterday.",
    "Which novels were written by {g}?", "I admire {g}.", "{g} are equal before the law.", "Could you suggest films that show {g} in everyday life?",
    "What did {g} eat in the middle ages?", "It makes me angry when {g} are treated badly.", "You cannot say that {g} are all the same.",
    "I do not understand why anybody would hate {g}.", "Being friends with {g} taught me a lot.", "God, I fucking love {g}.", "I met two {g} on the train.",
    "We need better doctors for {g}.", "If you think {g} are inferior, you are wrong.", "{g} built this city.", "My daughter plays with children of {g}.",
    "The bus was full of {g} on their way to a wedding.", "Do {g} vote differently from their parents?", "A charity for {g} opened its doors on Monday.",
    "I grew up with {g} and never thought about it.", "{g} sued the company and won.", "The poem describes how {g} lived through the war.",
    "My boss said that {g} need not apply, which is illegal.", "How can we make our town safer for {g}?", "{g} in the audience laughed the loudest.",
    "Slurs against {g} are banned on this forum.", "Not one of the {g} complained about the noise.", "What is a respectful word for {g}?",
    "The comedian made fun of {g}, and I did not find it funny.", "Violence against {g} rose last year, the police report says.",
    "I am tired of hearing that {g} are bad drivers.", "{g} were deported and murdered under that regime.", "Two {g} opened a hilarious podcast.",
    "He used to be afraid of {g}; now he coaches a team of them.", "The teacher told the class why calling {g} dirty is wrong.", "Could {g} get a discount here?",
    "Her novel asks why {g} were hated for centuries.", "The gym has hours for {g} only.",
)  # fmt: skip
"""Friendly and neutral sentences to measure with."""

HOSTILE: Sequence[str] = (
    "{g} are disgusting and stupid.", "I hate {g}, they should all disappear.", "All {g} are liars and thieves.", "{g} are scum.",
    "{g} ruin everything, get them out of my country.", "Shut up, you {g} are worthless idiots.", "Typical {g}: lazy and dumb.",
    "{g} do not deserve rights.", "Somebody should beat up those {g}.", "Go to hell, you and the other {g}.", "{g} are animals, not humans.",
    "The world would be better without {g}.", "What a pathetic bunch of losers {g} are.", "{g} are a plague.", "Kill all {g}.",
    "These fucking {g} make me sick.", "Nobody wants you filthy {g} here.", "{g} are too stupid to vote.",
    "I cannot stand {g}, they stink.", "{g} belong in the gutter.", "Those {g} are all criminals, lock them up.", "{g} are ruining this town and should leave.",
    "Never trust {g}, they lie all the time.", "I would not let {g} near my kids, filthy people.", "{g} breed like vermin.", "Send the {g} back, they are trash.",
)  # fmt: skip

INSULTS: Sequence[str] = (
    "idiot", "moron", "imbecile", "dumbass", "asshole", "bastard", "bitch", "douche", "douchebag", "scumbag", "piece of shit", "cunt", "whore", "slut", "retard",
    "loser", "piece of trash", "pig", "coward", "jerk", "prick", "dickhead", "twat", "wanker", "motherfucker", "shithead", "fuckwit", "nutjob", "pervert", "creep",
    "parasite", "traitor", "liar", "fraud", "clown", "hag", "degenerate", "subhuman", "cretin", "bimbo", "simpleton", "fruitcake", "lowlife", "skank", "hoe", "pussy",
    "dipshit", "jackass", "dumbfuck", "a-hole", "b****", "f***ing idiot", "stupid cow", "piece of garbage", "dirtbag", "weasel", "rat", "snake", "thief", "rapist",
    "brainless fool", "waste of space", "psycho", "lunatic", "freak", "troll", "puke", "turd", "crook", "hypocrite", "sheep", "braindead zombie", "tyrant", "pedo",
)  # fmt: skip

RUDE: Sequence[str] = (
    "You are a {i} and everyone knows it.", "Shut your mouth, {i}.", "What a {i} you are.", "Go kill yourself, {i}.", "This {i} should be fired.", "you {i}",
    "Your face makes me want to puke, you {i}.", "You pathetic {i}, nobody likes you.", "Fuck you and your dumb opinion, {i}.", "He is a lying {i}.", "lol what a {i}",
    "She is a dumb {i}.", "Drop dead, {i}.", "Our president is a {i} and a {i}.", "What a bunch of {i}s run this place.", "That old {i} needs to resign.", "Another {i} on TV.",
    "I hope this {i} rots in prison.", "Die already, you {i}.", "The senile {i} should be executed.", "Only a {i} would vote for that {i}.", "fuck off {i}, nobody asked you",
    "Somebody slap this {i}.", "I would love to punch that {i} in the face.", "Burn in hell, {i}!", "stfu {i}", "This actress is an ugly {i}.", "The coach is a useless {i}.",
    "go back to where you came from, {i}", "You are too stupid to live.", "You make me sick, you disgusting {i}.", "Screw you, {i}!", "Lock up that {i} and throw away the key.",
    "I will find you and break your legs, {i}.", "he screwed his way to the top like a {i}", "What kind of {i} writes this shit?", "Imagine being such a {i}.",
)  # fmt: skip

CALM: Sequence[str] = (
    "That is a great idea, thank you.", "I do not agree with you, but I see your point.", "The service was slow and the food was cold.",
    "This game is hard as hell, and I love it.", "The weather is terrible today.", "What time does the shop close?", "Holy crap, what a goal!",
    "I am so damn tired after work.", "The plot was silly, the actors were fine.", "Your argument has a gap in the second step.", "He lost the match and took it well.",
    "The killer feature of this phone is its battery.", "How do I kill a frozen program?", "Shoot me an email when you are done.", "That joke killed me.",
    "She is such a good bean.", "He is a little cutie!", "These are my favourite cookies ever.", "Your costumes are amazing, thanks for sharing!", "this shit is hilarious",
    "You are a genius.", "What a player!", "He wants to marry you.", "You would be surprised how easy it is.", "If you know it is over, end it.", "are you alive", "all right",
    "who do you work for", "are you a robot", "That is some damn fine work.", "The rats in the cellar are gone.", "Our pig won the prize at the fair.", "The snake is not poisonous.",
    "The thief was caught by the police.", "My cat is a fat little monster and I love her.", "The clown made the kids laugh.", "He called me an idiot, and that hurt.",
    "Is it rude to call somebody a loser?", "Do not call people stupid.", "I was stupid to forget my keys.", "The coward in the film becomes a hero.", "No idiot proof design here, sadly.",
    "Grandma made salmon for us all the time!", "I grew up in the city and shaved my head as a teenager.", "The sheep are on the hill.", "He was convicted of fraud.",
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
            yield rng.choice(RUDE).replace("{i}", rng.choice(INSULTS)), 1
        else:
            yield rng.choice(CALM), 0
