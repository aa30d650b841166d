"""Words of insult, in clear: mild enough to print, plain enough to argue about. None of them is a slur.

A list of slurs, hashed or not, would find more. It is left out on purpose: nobody can review a list of hashes, and one
in clear is not something to ship.
"""

import re

_WORDS = (
    "idiot", "idiots", "idiotic", "stupid", "stupidity", "moron", "morons", "dumb", "imbecile", "fool", "fools",
    "foolish", "lazy", "laziness", "disgusting", "disgusted", "worthless", "filthy", "inferior", "ugly",
    "pathetic", "scum", "vermin", "parasite", "parasites", "hateful", "hatred", "loser", "losers",
    "ignorant", "useless", "liar", "liars", "savages",
    "greedy", "cowards", "coward", "brainless", "clueless", "despicable", "repulsive", "selfish",
    "shut up", "smelly", "stink", "whining",
)  # fmt: skip
INSULTS = frozenset(_WORDS)
_ANY = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, sorted(INSULTS, key=len, reverse=True)))})(?!\w)", re.I)


def insults_in(text: str) -> list[str]:
    """The words of insult that stand in a text, in lower case, each once, in order.

    What is said about the word (that somebody is not stupid, say) is not looked at.
    """
    return list(dict.fromkeys(match[0].lower() for match in _ANY.finditer(text)))
