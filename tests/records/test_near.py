"""Near-duplicates: what is reported is so, and little is missed; against a plain, slow count of the same."""

import random
import re
import tempfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from record_files import GOOD, MakeFile, checked, codes
from roslin.errors import MachineError
from roslin.records.near import BANDS, FIELD_THRESHOLD, THRESHOLD, NearDuplicates, _candidates, band_keys, words_of

Texts = tuple[str, str, str]
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprstvz" for b in "aeiou" for c in ("", "n", "rt", "sk", "ll")]


def plain_words(text: str) -> list[str]:
    """ASCII words only; enough for the texts generated here."""
    return re.findall(r"[a-z0-9]+", text.lower())


def plain_runs(texts: Texts) -> set[tuple[object, ...]]:
    runs: set[tuple[object, ...]] = set()
    for field, text in enumerate(texts):
        words = plain_words(text)
        runs |= {(field, *words[i : i + 3], *[None] * (3 - len(words[i : i + 3]))) for i in range(len(words))}
    return runs


def jaccard(a: set[object], b: set[object]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def plain_similarity(a: Texts, b: Texts) -> float:
    whole = jaccard(set(plain_runs(a)), set(plain_runs(b)))
    fields = (jaccard(set(plain_words(x)), set(plain_words(y))) for x, y in zip(a, b, strict=True))
    return whole if min(fields) >= FIELD_THRESHOLD else 0.0


def found_pairs(texts: list[Texts]) -> list[tuple[int, int, float]]:
    with NearDuplicates() as index:
        for number, fields in enumerate(texts):
            index.add(number, *fields)
        return index.pairs()


def made_up(rng: random.Random, low: int = 8, high: int = 120) -> Texts:
    def text(low: int, high: int) -> str:
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))

    return text(5, 20), text(20, 80) if rng.random() < 0.3 else "", text(low, high)


def edited(rng: random.Random, texts: Texts) -> Texts:
    """A few words replaced, dropped or added."""
    fields = [text.split() for text in texts]
    for _ in range(rng.randint(1, 4)):
        words = rng.choice([field for field in fields if field])
        place = rng.randrange(len(words))
        words[place : place + rng.randint(0, 1)] = rng.choices(WORDS, k=rng.randint(0, 1))
    one, two, three = (" ".join(field) for field in fields)
    return one, two, three


def test_edits_are_found_and_similarities_are_true() -> None:
    """1,500 edited copies among 3,000 texts: all found are true, and at least 99 % of the true ones are found."""
    rng = random.Random(5)
    originals = [made_up(rng) for _ in range(1500)]
    copies = [edited(rng, texts) for texts in originals]
    texts = originals + copies
    found = {(later, earlier): similarity for later, earlier, similarity in found_pairs(texts)}
    for (later, earlier), similarity in found.items():
        assert similarity == pytest.approx(plain_similarity(texts[later], texts[earlier]))
        assert similarity >= THRESHOLD
    true = [n for n in range(1500) if plain_similarity(originals[n], copies[n]) >= THRESHOLD]
    missed = [n for n in true if (1500 + n, n) not in found]
    assert len(true) > 700
    assert len(missed) <= 0.01 * len(true)
    assert len(found) <= len(true)


@settings(deadline=None, max_examples=40)
@given(texts=st.lists(st.tuples(*[st.text("ab c.", max_size=14)] * 3), max_size=12))
def test_nothing_untrue_is_ever_reported(texts: list[Texts]) -> None:
    for later, earlier, similarity in found_pairs(texts):
        assert earlier < later
        assert similarity == pytest.approx(plain_similarity(texts[later], texts[earlier]))


@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="ascii"), max_size=40), min_size=3, max_size=9))
def test_words_are_counted_as_a_plain_reading_does(texts: list[str]) -> None:
    hashes, counts = words_of(texts)
    plain = [plain_words(text) for text in texts]
    assert counts.tolist() == [len(words) for words in plain]
    flat = [word for words in plain for word in words]
    by_word = dict(zip(flat, hashes.tolist(), strict=True))
    assert [by_word[word] for word in flat] == hashes.tolist()
    assert len(set(by_word.values())) == len(by_word)


def test_words_of_other_scripts() -> None:
    _, counts = words_of(["Übergrößenträger läuft", "一只羊 and 多利", "где овца?", "", "한국어 양"])
    assert counts.tolist() == [2, 6, 2, 0, 4]
    hashes, _ = words_of(["Straße STRASSE straße"])
    assert hashes[0] == hashes[2] != hashes[1]


def test_one_passage_with_two_questions_is_no_duplicate_nor_one_question_with_two_answers() -> None:
    rng = random.Random(1)
    passage, answer = (" ".join(rng.choices(WORDS, k=n)) for n in (200, 60))
    texts = [
        ("Who founded the city on the coast?", passage, "A fisherman."),
        ("When was the harbour built again?", passage, "In 1850."),
        (passage, "", "yes"),
        (passage, "", "no"),
        ("Name the winner of the race.", passage[:100], answer),
        ("Name the winner of that race.", passage[:100], answer),
    ]
    assert [(later, earlier) for later, earlier, _ in found_pairs(texts)] == [(5, 4)]


def test_crowds_of_the_same_template_are_all_found_in_time() -> None:
    """5,000 records that differ in one number: each is near the first, and no step looks at all pairs."""
    body = " ".join(WORDS[:60])
    texts = [("Write about it.", "", f"{body} {n}") for n in range(5000)]
    found = found_pairs(texts)
    assert [later for later, _, _ in found] == list(range(1, 5000))


def test_the_check_names_the_near_duplicate_once_and_the_exact_one_as_such(make_file: MakeFile) -> None:
    long = {**GOOD, "response": " ".join(WORDS[:80])}
    near = {**long, "response": long["response"].replace(WORDS[40], "sheep").upper()}
    held = make_file({**near, "instruction": "Name one river.", "context": ""}, name="held.jsonl")
    path = make_file(long, near, long, {**long, "response": " ".join(WORDS[80:160])})
    assert codes(checked(path, near=True)) == [(2, "", "near-duplicate"), (3, "", "duplicate")]
    report = checked(path, near=True, held_out=[held])
    told = [(f.line, f.code, str(held) in f.message) for f in report.warnings]
    assert told == [(1, "near-duplicate", True), (2, "near-duplicate", True), (3, "duplicate", False)]


def test_a_crowd_is_compared_with_its_first_and_with_those_just_before() -> None:
    keys = np.zeros((6, BANDS), dtype=np.uint32)
    keys[3] = 7
    assert _candidates(keys).tolist() == [[1, 0], [2, 0], [2, 1], [4, 0], [4, 1], [4, 2], [5, 0], [5, 2], [5, 4]]


def test_no_room_for_the_words_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, make_file: MakeFile) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: PTH123, SIM115
    with pytest.raises(MachineError, match=r"temporary file.*No space left.*TMPDIR"):
        checked(make_file(GOOD), near=True)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nowhere")
    with pytest.raises(MachineError, match="temporary file"):
        checked(make_file(GOOD), near=True)


def test_keys_of_alike_texts_agree_as_often_as_minhash_says() -> None:
    """A share of keys in common near s^5, for pairs of a known similarity s."""
    rng = np.random.default_rng(3)
    shares = []
    for _ in range(300):
        common = rng.integers(0, 2**32, 90, dtype=np.uint32)
        own = [rng.integers(0, 2**32, 5, dtype=np.uint32) for _ in range(2)]
        runs = np.concatenate([common, own[0], common, own[1]])
        first, second = band_keys(runs, np.array([95, 95]))
        shares.append(float((first == second).mean()))
    assert np.mean(shares) == pytest.approx(0.9**5, abs=0.03)
    assert all(a != b for a, b in pairwise(np.unique(first)))
