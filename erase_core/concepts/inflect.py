"""Small English inflection: plurals, verb forms and articles, enough for prompts.

Not a dictionary: regular rules and the irregular words that pictures are made of. A form is named
`base`, `s` (plural or third person), `ing` or `ed` (past and participle).
"""

from __future__ import annotations

import re
from functools import lru_cache

FORMS = ("base", "s", "ing", "ed")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _pairs(text: str) -> dict[str, str]:
    return dict(line.split() for line in text.split(",") if line.strip())


IRREGULAR_PLURALS = _pairs(
    "man men, woman women, child children, person people, mouse mice, louse lice, goose geese, "
    "foot feet, tooth teeth, ox oxen, leaf leaves, wolf wolves, knife knives, life lives, "
    "wife wives, half halves, shelf shelves, loaf loaves, thief thieves, elf elves, calf calves, "
    "scarf scarves, hoof hooves, cactus cacti, potato potatoes, tomato tomatoes, hero heroes, "
    "echo echoes, mosquito mosquitoes, volcano volcanoes, mango mangoes, bus buses, lens lenses, "
    "cookie cookies, brownie brownies, movie movies, zombie zombies, selfie selfies, pie pies, "
    "tie ties, hoodie hoodies, smoothie smoothies, genie genies, magpie magpies"
)
REGULAR_MAN = _words("human german shaman roman talisman ottoman norman caiman")
UNCHANGED = _words(
    "sheep deer fish moose bison shrimp salmon trout squid swine aircraft spacecraft hovercraft "
    "series species offspring"
)
PLURAL_ONLY = _words(
    "scissors glasses sunglasses jeans trousers pants shorts pliers binoculars headphones tights "
    "pyjamas pajamas leggings tweezers goggles"
)
UNCOUNTABLE = _words(
    "snow rain water fire blood gore nudity violence smoke fog grass sand mud ice rice bread "
    "cheese butter milk coffee tea wine beer juice sugar honey meat soup chocolate popcorn sushi "
    "soccer football basketball baseball volleyball tennis golf hockey rugby cricket badminton "
    "boxing surfing skiing ballet chess music furniture clothing jewelry lightning thunder wind "
    "sunlight moonlight graffiti pornography art gold silver wood stone glass lava wool "
    "yoga ketchup sweat surgery underwear swimwear fencing romance wrestling brutality carnage "
    "bloodshed erotica porn bleeding oil paint sauce bamboo corn spaghetti broccoli garlic lavender"
)
IRREGULAR_VERBS = {
    verb: tuple(past.split("/"))
    for verb, past in _pairs(
        "hold held, eat ate/eaten, ride rode/ridden, bite bit/bitten, drive drove/driven, "
        "wear wore/worn, sit sat, stand stood, catch caught, fight fought, throw threw/thrown, "
        "hit hit, read read, write wrote/written, swim swam/swum, run ran, sleep slept, feed fed, "
        "shake shook/shaken, lie lay/lain, drink drank/drunk, fly flew/flown, give gave/given, "
        "hang hung, hide hid/hidden, break broke/broken, lead led, sing sang/sung, beat beat, "
        "shoot shot, kneel knelt, lean leaned/leant, blow blew/blown, steal stole/stolen, "
        "bring brought, take took/taken, cut cut, tear tore/torn"
    ).items()
}
VERBS = IRREGULAR_VERBS.keys() | _words(
    "hug kiss embrace cuddle touch carry chase push pull pet lick pat follow face kick punch slap "
    "play dance walk jump climb wave point look watch stare cook wash brush comb paint talk clap "
    "smile cry laugh smoke wrestle grab lift cover wrap tie surround support approach greet attack "
    "stab strangle snuggle nuzzle caress stroke squeeze tickle serve pour float hunt show "
    "depict feature contain smell lean teach comfort photograph"
)
SPATIAL = _words(
    "of to in on at by with from into onto over under above below beneath underneath inside "
    "outside beside besides behind near between among around across along through against "
    "opposite atop before after within beyond past towards toward off next left right front top "
    "upon alongside amid during for like without"
)
_VOWELS = "aeiou"


def is_preposition(phrase: str) -> bool:
    """Whether a relation is a place ("left of", "far from") and therefore never inflected."""
    first, *rest = phrase.lower().split()
    return first in SPATIAL or (rest[-1:] != [] and rest[-1] in SPATIAL and not is_verb(phrase))


def is_name(phrase: str) -> bool:
    """Whether a noun stands without article and plural: names, masses, scissors, cubism."""
    last = phrase.split()[-1]
    if last[:1].isupper():
        return True
    return last.lower() in UNCOUNTABLE | PLURAL_ONLY or last.endswith(("ism", "ness"))


def article(phrase: str) -> str:
    """`a` or `an`, by the sound that `phrase` begins with."""
    word = re.sub(r"^\W+", "", phrase).lower()
    if re.match(r"(hour|hono|heir|honest|8|11\b|18\b)", word):
        return "an"
    if re.match(r"(uni([^nm]|$)|use|usu|eu|one\b|once|ukulele|ufo|utens)", word):
        return "a"
    return "an" if word[:1] and word[0] in "aeiouáéíóúåäöü" else "a"


def articles(text: str) -> str:
    """`text` with every "a" and "an" set right for the word that follows it."""

    def right(match: re.Match[str]) -> str:
        found = article(match[2])
        return (found.capitalize() if match[1][0] == "A" else found) + " "

    return re.sub(r"\b([Aa]n?) (?=(\w+))", right, text)


def plural(noun: str) -> str:
    """The plural of a noun or a phrase's head: foxes, hot dogs, slices of pizza."""
    head = re.match(r"(.+?)( (?:of|in|with|on) .+)$", noun)
    if head:
        return plural(head[1]) + head[2]
    first, last = _split_last(noun)
    return first + (last if _is_plural_word(last) else _plural_word(last))


def singular(noun: str) -> str:
    """The singular of a plural noun, or the noun itself when it does not look like a plural."""
    first, last = _split_last(noun)
    return first + _singular_word(last)


def _split_last(phrase: str) -> tuple[str, str]:
    cut = max(phrase.rfind(" "), phrase.rfind("-")) + 1
    return phrase[:cut], phrase[cut:]


def _plural_word(word: str) -> str:
    low = word.lower()
    if low in UNCOUNTABLE or low in UNCHANGED or low.endswith("fish"):
        return word
    if low in IRREGULAR_PLURALS:
        return word[0] + IRREGULAR_PLURALS[low][1:]
    if low.endswith("man") and low not in REGULAR_MAN:
        return word[:-2] + "en"
    return _add_s(word)


def _add_s(word: str) -> str:
    low = word.lower()
    if low.endswith(("s", "x", "z", "ch", "sh")):
        return word + "es"
    if low.endswith("y") and low[-2:-1] not in tuple(_VOWELS) and not word[:1].isupper():
        return word[:-1] + "ies"
    return word + "s"


def _is_plural_word(word: str) -> bool:
    return _singular_word(word) != word or word.lower() in PLURAL_ONLY


@lru_cache(maxsize=4096)
def _singular_word(word: str) -> str:
    low = word.lower()
    for one, many in IRREGULAR_PLURALS.items():
        if low == many:
            return one
    if low in PLURAL_ONLY | UNCHANGED | IRREGULAR_PLURALS.keys() or word[:1].isupper():
        return word
    if low.endswith("men") and len(low) > 3:
        return word[:-2] + "an"
    if low.endswith("ies") and len(low) > 4:
        return word[:-3] + "y"
    if low.endswith(("ses", "xes", "zzes", "ches", "shes")):
        return word[:-2] if low.endswith(("sses", "xes", "zzes", "ches", "shes")) else word[:-1]
    if low.endswith("s") and len(low) > 3 and not low.endswith(("ss", "us", "is", "as")):
        return word[:-1]
    return word


def _doubles(verb: str) -> bool:
    """One syllable ending consonant, vowel, consonant: hug -> hugging."""
    return bool(re.fullmatch(r"[^aeiou]*(?:qu)?[aeiou][^aeiouwxy]", verb))


def _ing(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return verb + (verb[-1] if _doubles(verb) else "") + "ing"


def _ed(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2:-1] not in tuple(_VOWELS):
        return verb[:-1] + "ied"
    return verb + (verb[-1] if _doubles(verb) else "") + "ed"


def _verb_forms(verb: str) -> dict[str, tuple[str, ...]]:
    past = IRREGULAR_VERBS.get(verb, (_ed(verb),))
    return {"base": (verb,), "s": (_add_s(verb),), "ing": (_ing(verb),), "ed": past}


_LEMMAS = {
    form: verb
    for verb in sorted(VERBS)
    for kind, forms in _verb_forms(verb).items()
    for form in forms
    if kind in ("ing", "ed") and form not in VERBS
}


def lemma(word: str) -> str:
    """The base of one word: hugging -> hug, tigers -> tiger; unknown words stay as they are."""
    return _LEMMAS.get(word.lower(), _singular_word(word))


@lru_cache(maxsize=4096)
def word_forms(word: str) -> dict[str, tuple[str, ...]]:
    """All forms of one word by name (see FORMS), the usual one first; `word` is among them."""
    low = lemma(word).lower()
    usual = _add_s(low) if low in VERBS else _plural_word(low)
    others = sorted({_add_s(low), low + "s"} - {usual})
    forms = {**_verb_forms(low), "s": (usual, *others)}
    if not any(word.lower() in same for same in forms.values()):
        forms["base"] = (low, word.lower())
    return forms


def is_verb(phrase: str) -> bool:
    """Whether a phrase is led by a known verb: hug, hugging, holding hands, play chess."""
    first, *rest = phrase.lower().split()
    if not rest or first in _LEMMAS:
        return lemma(first) in VERBS
    return first in VERBS and (rest[-1] in UNCOUNTABLE | SPATIAL or _is_plural_word(rest[-1]))


def form_of(surface: str, word: str) -> str:
    """In which form `word` stands as `surface`: ("hugging", "hug") -> "ing"; "base" if unknown."""
    said, base = re.split(r"[\s-]+", surface.lower()), re.split(r"[\s-]+", word.lower())
    place = 0 if len(base) > 1 and (is_verb(word) or said[0] != base[0]) else -1
    forms = word_forms(base[place])
    return next((form for form in FORMS if said[place] in forms[form]), "base")


def inflect(phrase: str, form: str) -> str:
    """`phrase` in the named form: the verb of a verb phrase, the head of a noun phrase.

    Places ("left of") and names have one form only; "base" leaves the phrase as it is given.
    """
    if form == "base" or is_preposition(phrase):
        return phrase
    if form == "s" and not is_verb(phrase):
        return phrase if is_name(phrase) else plural(phrase)
    first, _, rest = phrase.partition(" ")
    return word_forms(first)[form][0] + (" " + rest if rest else "")
