"""IFEval's instructions that can be checked by a program: each says whether an answer follows it.

Definitions: Zhou et al., Instruction-Following Evaluation for Large Language Models (2023), table 1, made exact by the
program published with it, which the tests hold these against.
"""

import json
import re
from collections.abc import Callable, Sequence

from roslin.evaluate.ifeval import texts

AT_LEAST, LESS_THAN = "at least", "less than"
RELATIONS = (LESS_THAN, AT_LEAST)

OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


def compares(count: int, relation: str, wanted: int) -> bool:
    """Whether a count is `at least` or `less than` what is wanted."""
    return count >= wanted if relation == AT_LEAST else count < wanted


def has_keywords(answer: str, keywords: Sequence[str]) -> bool:
    """Each keyword occurs, in any case, within a longer word too."""
    return all(keyword.lower() in answer.lower() for keyword in keywords)


def keyword_often(answer: str, keyword: str, frequency: int, relation: str) -> bool:
    """The keyword occurs so often, in any case, within longer words too."""
    return compares(answer.lower().count(keyword.strip().lower()), relation, frequency)


def lacks_words(answer: str, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs as a whole word, in any case."""
    return not any(re.search(rf"\b{re.escape(word)}\b", answer, re.IGNORECASE) for word in forbidden_words)


def letter_often(answer: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    """The letter (or other sign) occurs so often, in any case."""
    return compares(answer.lower().count(letter.strip().lower()), let_relation, let_frequency)


def sentence_count(answer: str, num_sentences: int, relation: str) -> bool:
    """So many sentences."""
    return compares(len(texts.sentences(answer)), relation, num_sentences)


def word_count(answer: str, num_words: int, relation: str) -> bool:
    """So many words."""
    return compares(len(texts.words(answer)), relation, num_words)


def paragraph_count(answer: str, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs between dividers `***`; an empty one may stand at either end, not between."""
    parts = [part.strip() for part in texts.divided(answer)]
    return all(parts[1:-1]) and sum(map(bool, parts)) == num_paragraphs


def paragraph_begins(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs between empty lines, and the n-th begins with the word, in any case.

    As in the published program, empty paragraphs are not counted, yet have a number.
    """
    paragraphs = [paragraph.strip() for paragraph in answer.split("\n\n")]
    filled = sum(map(bool, paragraphs))
    if filled != num_paragraphs or nth_paragraph > filled or not paragraphs[nth_paragraph - 1]:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split(r"""[.,?!'"]""", word, maxsplit=1)[0].lower() == first_word.lower()


def placeholders(answer: str, num_placeholders: int) -> bool:
    """At least so many texts in square brackets."""
    return len(re.findall(r"\[.*?\]", answer)) >= num_placeholders


def postscript(answer: str, postscript_marker: str) -> bool:
    """The marker of a postscript occurs, in any case; after a period of P.S. and P.P.S a blank may stand."""
    patterns = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = postscript_marker.strip()
    return re.search(patterns.get(marker, re.escape(marker.lower())), answer.lower()) is not None


def bullets(answer: str, num_bullets: int) -> bool:
    """Exactly so many lines that begin with `-`, or with `*` and anything but another `*`."""
    # A line that is a lone `*` takes the blanks and the line after it along, as in the published program.
    stars = re.findall(r"^\s*\*[^*].*$", answer, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", answer, re.MULTILINE)
    return len(stars) + len(dashes) == num_bullets


def constrained(answer: str) -> bool:
    """One of the three allowed answers occurs."""
    return any(option in answer for option in OPTIONS)


def highlights(answer: str, num_highlights: int) -> bool:
    """At least so many texts between single or double asterisks, each on one line and not empty."""
    single = [text for text in re.findall(r"\*([^\n*]*)\*", answer) if text.strip()]
    double = [text for text in re.findall(r"\*\*([^\n*]*)\*\*", answer) if text.strip()]
    return len(single) + len(double) >= num_highlights


def sections(answer: str, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections, each begun by the word and a number."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", answer)) >= num_sections


def is_json(answer: str) -> bool:
    """The whole answer is JSON, in a Markdown fence or not."""
    text = re.sub(r"\A```(?:json|Json|JSON)?|```\Z", "", answer.strip())
    try:
        json.loads(text.strip())
    except (ValueError, RecursionError):  # the second from brackets within brackets without end
        return False
    return True


def titled(answer: str) -> bool:
    """A title in double angular brackets occurs, and is not empty."""
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", answer))


def two_answers(answer: str) -> bool:
    """Exactly two different answers between six asterisks; an empty one may stand at either end, not between."""
    parts = [part.strip() for part in answer.split("******")]
    given = [part for part in parts if part]
    return all(parts[1:-1]) and len(given) == 2 and given[0] != given[1]


def repeats(answer: str, prompt_to_repeat: str) -> bool:
    """The answer begins with the request, in any case."""
    return answer.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends_with(answer: str, end_phrase: str) -> bool:
    """The answer ends with the phrase, in any case, inside quotation marks or not."""
    return answer.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_words_often(answer: str, capital_frequency: int, capital_relation: str) -> bool:
    """So many words all in capitals."""
    return compares(len(texts.capital_words(answer)), capital_relation, capital_frequency)


def all_capitals(answer: str) -> bool:
    """All letters are capitals. The reference asks besides that langdetect take it for English."""
    return answer.isupper()


def all_small(answer: str) -> bool:
    """No letter is a capital. The reference asks besides that langdetect take it for English."""
    return answer.islower()


def no_comma(answer: str) -> bool:
    """There is no comma."""
    return "," not in answer


def quoted(answer: str) -> bool:
    """The whole answer stands in double quotation marks."""
    text = answer.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": has_keywords,
    "keywords:frequency": keyword_often,
    "keywords:forbidden_words": lacks_words,
    "keywords:letter_frequency": letter_often,
    "length_constraints:number_sentences": sentence_count,
    "length_constraints:number_words": word_count,
    "length_constraints:number_paragraphs": paragraph_count,
    "length_constraints:nth_paragraph_first_word": paragraph_begins,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullets,
    "detectable_format:constrained_response": constrained,
    "detectable_format:number_highlighted_sections": highlights,
    "detectable_format:multiple_sections": sections,
    "detectable_format:json_format": is_json,
    "detectable_format:title": titled,
    "combination:two_responses": two_answers,
    "combination:repeat_prompt": repeats,
    "startend:end_checker": ends_with,
    "startend:quotation": quoted,
    "change_case:capital_word_frequency": capital_words_often,
    "change_case:english_capital": all_capitals,
    "change_case:english_lowercase": all_small,
    "punctuation:no_comma": no_comma,
}
"""By the name that IFEval's files give an instruction; the parameters' names are those of its files as well."""

UNCHECKED = frozenset({"language:response_language"})
"""The 25th: it needs a model of languages (langdetect), which Roslin does not bring."""
