"""Dolly's prompt: its keys, its two forms, and the answer found in a generated text.

Source: databrickslabs/dolly, training/consts.py and training/generate.py. The texts are a format, kept byte for byte.
"""

import re
from dataclasses import dataclass

INTRO = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
INSTRUCTION_KEY = "### Instruction:"
INPUT_KEY = "Input:"
RESPONSE_KEY = "### Response:"
RESPONSE_KEY_LINE = "### Response:\n"
END_KEY = "### End"

SPECIAL_KEYS = (END_KEY, INSTRUCTION_KEY, RESPONSE_KEY_LINE)
"""The three keys that become tokens, in the order in which Dolly adds them to the base's tokenizer."""

FIRST_SPECIAL_KEYS = (END_KEY, INSTRUCTION_KEY, RESPONSE_KEY)
"""Those of dolly-v1-6b, whose newline after the response key is a token by itself (training/trainer.py, March 2023)."""

FORBIDDEN_IN_RECORDS = (INSTRUCTION_KEY, RESPONSE_KEY, END_KEY)
"""Keys that no field of a record may hold: inside a text they would end or restart the prompt."""


@dataclass(frozen=True)
class PromptSpans:
    """A training text in the pieces between its keys: `opening KEY question KEY answer KEY`."""

    opening: str
    question: str
    answer: str

    @property
    def text(self) -> str:
        """The whole training text, keys included."""
        return f"{self.opening}{INSTRUCTION_KEY}{self.question}{RESPONSE_KEY_LINE}{self.answer}{END_KEY}"


def spans(instruction: str, context: str | None = None, response: str = "") -> PromptSpans:
    """Split one record's text at its keys; tokenizing the pieces needs no search for keys among tokens."""
    return PromptSpans(
        opening=f"{INTRO}\n\n",
        question=f"\n{with_context(instruction, context)}\n\n",
        answer=f"{response}\n\n",
    )


def with_context(instruction: str, context: str | None) -> str:
    """The instruction, followed by its context in Dolly's form when there is one."""
    return f"{instruction}\n\n{INPUT_KEY}\n{context}" if context else instruction


def render_prompt(instruction: str, context: str | None = None) -> str:
    """The text a model is asked with: everything up to and including the response key and its newline."""
    pieces = spans(instruction, context)
    return f"{pieces.opening}{INSTRUCTION_KEY}{pieces.question}{RESPONSE_KEY_LINE}"


def render_record(instruction: str, context: str | None, response: str) -> str:
    """The text a model is tuned on: the prompt, the response and the end key."""
    return spans(instruction, context, response).text


_ANSWER = re.compile(r"(?<!#)#++\s*+Response:\s*(?P<answer>.*?)(?:(?<!#)#++\s*+End|\Z)", re.DOTALL)
"""Possessive, and from the first `#` of a run alone: a model that goes on with `#` for ever is read in linear time."""


def find_answer(text: str) -> str | None:
    """The stripped answer between the response key and the end key (or the text's end); None without a response key.

    For models whose tokenizer lacks the keys, which may write them with any number of `#`.
    """
    found = _ANSWER.search(text)
    return found["answer"].strip() if found else None
