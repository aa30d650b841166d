"""Letter writing: whether an answer is laid out as a letter."""

import re
from collections.abc import Sequence
from random import Random

from roslin.evaluate.limits.probe import Check, Family, Probe, Verdict, judged
from roslin.evaluate.limits.reading import lines, names, sentences, words
from roslin.evaluate.limits.rules import substance_faults

RECIPIENTS = ("Ms Okafor", "Mr Lindqvist", "Dr Haddad", "Mrs Petrov", "Professor Amaru", "Ms Tanaka")
SENDERS = ("Ida Brandt", "Tom Achterberg", "Nadia Flores", "Sam Whitlock", "Leila Moreau")
PURPOSES = {
    "thank {} for the repair of a roof": "roof",
    "complain to {} about a noisy lift": "lift",
    "ask {} for a copy of an invoice": "invoice",
    "invite {} to a concert on Friday": "concert",
    "apologise to {} for a broken window": "window",
    "apply to {} for work in a bakery": "bakery",
    "remind {} about a borrowed ladder": "ladder",
    "congratulate {} on a new garden": "garden",
}
FEWEST_WORDS = 12
"""Of a body; any fewer are a note."""
MOST_AFTER = 3
"""Lines below the sender's name."""
_GREETING = re.compile(r"^(?:dear|hello|hi|good (?:morning|afternoon|evening))\b.*[,:!]?$", re.IGNORECASE)
_CLOSING = re.compile(
    r"^(?:yours(?:\s+\w+)?|(?:\w+\s+)?(?:sincerely|faithfully|truly|respectfully|cordially)(?:\s+yours)?"
    r"|(?:with\s+)?(?:(?:my|our)\s+)?(?:\w+\s+)?(?:regards|wishes|thanks|gratitude|respect|appreciation|apologies)"
    r"|thank you|best|love)\s*[,.!]?$",
    re.IGNORECASE,
)


def laid_out(instruction: str, recipient: str, sender: str, topic: str) -> Check:
    """A greeting with the name, a body on the topic, a closing, and the sender's name: each on lines of its own."""

    def check(answer: str) -> Verdict:
        found = lines(answer)
        faults = substance_faults(answer, instruction)
        greeting = next((i for i, line in enumerate(found) if _GREETING.match(line) and len(words(line)) <= 6), None)
        closing = max((i for i, line in enumerate(found) if _CLOSING.match(line)), default=None)
        if greeting is None:
            faults.append("no greeting on a line of its own")
        elif not names(found[greeting], recipient.rsplit(maxsplit=1)[-1]):
            faults.append(f"the greeting does not name {recipient}")
        if closing is None:
            faults.append("no closing on a line of its own")
        else:
            faults += _signature_faults(found[closing + 1 :], sender)
        body = "\n".join(found[(-1 if greeting is None else greeting) + 1 : closing])
        return judged(faults + _body_faults(body, topic), "greeting, body, closing and signature")

    return check


def _signature_faults(below: Sequence[str], sender: str) -> list[str]:
    """Of the lines below the closing: the name stands alone on one, and little follows (a title, a postscript)."""
    signed = next((i for i, line in enumerate(below) if names(line, sender) and len(words(line)) <= 6), None)
    if signed is None:
        return [f"{sender} does not sign below the closing"]
    after = len(below) - signed - 1
    return [f"{after} lines below the name"] if after > MOST_AFTER else []


def _body_faults(body: str, topic: str) -> list[str]:
    faults = [] if len(words(body)) >= FEWEST_WORDS and sentences(body) else [f"a body of {len(words(body))} words"]
    return faults + ([] if names(body, topic) else [f"the body does not name the {topic}"])


def letter(rng: Random) -> Probe:
    """A letter with a purpose, from one person to another."""
    recipient, sender, purpose = rng.choice(RECIPIENTS), rng.choice(SENDERS), rng.choice(sorted(PURPOSES))
    instruction = (
        f"Write a short, well-formatted letter of at most 80 words to {purpose.format(recipient)}. "
        f"The letter is from {sender}. Begin with a greeting and end with a closing and the sender's name."
    )
    return Probe("letter", instruction, laid_out(instruction, recipient, sender, PURPOSES[purpose]))


FAMILY = Family(
    name="letters",
    limitation="Well-formatted letter writing",
    rule="greeting with the name, body on the topic, closing, and the sender's name below it, on lines of their own",
    blind="layout only, not tone or grammar; English closings from a list of ours",
    max_new_tokens=192,
    whole=True,
    makers=(letter,),
)
