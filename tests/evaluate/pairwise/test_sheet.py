"""The blind sheet: what it holds, what it must not tell, and how its page behaves in a browser."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from roslin.errors import InputError
from roslin.evaluate.pairwise import Answered, Key, as_page, draw, make_key, read_key
from roslin.records import Record

HOSTILE = "</script><script>document.title='taken'</script>\u2028 <!-- & \"Ä\" ☃"


def record(n: int) -> Record:
    return Record(instruction=f"Question {n}?", context=f"Context {n}" if n % 2 else "", response=f"Human {n}")


def answered(count: int) -> list[Answered]:
    return [Answered(record(n), f"from one {n}", f"from two {n}") for n in range(count)]


def key_of(count: int = 21, models: tuple[str, str] = ("org/alpha", "org/beta"), seed: int = 42, **more: Any) -> Key:
    return make_key(answered(count), models, seed=seed, settings={"seed": seed, "top_p": 0.92}, **more)


def sides(key: Key) -> str:
    return "".join(item.left_is for item in key.items)


class Page(HTMLParser):
    """The parts of a page that a test asks after."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self._open_labels = 0
        self.unlabelled: list[str] = []
        self.feed(text)
        labelled = {attributes.get("for") for tag, attributes in self.elements if tag == "label"}
        self.unlabelled = [name for name in self.unlabelled if name not in labelled]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        self._in_script = tag == "script"
        self._open_labels += tag == "label"
        if tag in ("input", "textarea", "select") and not self._open_labels:
            self.unlabelled.append(attributes.get("id") or "")
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False
        self._open_labels -= tag == "label"

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data


def test_a_sample_is_fixed_by_its_seed_and_repeats_nothing() -> None:
    records = [record(n) for n in range(30)]
    drawn = draw(records, 12, 42)
    assert drawn == draw(records, 12, 42)
    assert drawn != draw(records, 12, 43)
    assert len({found.instruction for found in drawn}) == 12
    assert draw(records, 12, 42) == draw(records, 20, 42)[:12]
    assert sorted(found.instruction for found in draw(records, 99, 1)) == sorted(r.instruction for r in records)


def test_sides_are_balanced_and_shuffled() -> None:
    key = key_of(40)
    assert sides(key).count("a") == 20
    assert sides(key) != "ab" * 20
    assert sides(key) == sides(key_of(40))
    assert sides(key) != sides(key_of(40, seed=43))
    assert sides(key) != sides(key_of(40, models=("org/alpha", "org/gamma"))), "names must be known to work them out"
    odd = {sides(key_of(1, seed=seed)) for seed in range(20)}
    assert odd == {"a", "b"}
    for item in key.items:
        assert item.pair.left == f"from {'one' if item.left_is == 'a' else 'two'} {item.pair.number - 1}"
        assert item.pair.right == f"from {'two' if item.left_is == 'a' else 'one'} {item.pair.number - 1}"


def test_the_page_holds_the_pairs_and_nothing_of_the_key(tmp_path: Path) -> None:
    key = key_of(6, seed=98765)
    page = as_page(key)
    data, script = Page(page).scripts
    assert json.loads(data) == {"sheet": key.sheet, "pairs": [pair.model_dump() for pair in key.pairs]}
    assert all(pair.keys() == {"number", "instruction", "context", "reference", "left", "right"}
               for pair in json.loads(data)["pairs"])  # fmt: skip
    for betrays in ("alpha", "beta", "98765", "left_is", "model_a", "top_p", "Human"):
        assert betrays not in page
    assert "/*SHEET*/" not in page
    assert script
    (tmp_path / "sheet.key.json").write_bytes(key.as_json())
    assert read_key(tmp_path / "sheet.key.json") == key


def test_swapped_models_of_the_same_sides_make_the_same_page() -> None:
    """Only answers and sides make a page: what stands in it cannot come from a model's name or place."""
    one = make_key([Answered(record(1), "x", "y")], ("m", "n"), seed=1, settings={})
    swapped = [Answered(record(1), one.pairs[0].left, one.pairs[0].right)]
    others = (make_key(swapped, ("p", "q"), seed=seed, settings={"a": 1}) for seed in range(20))
    same = next(key for key in others if key.items[0].left_is == "a")
    assert as_page(same) == as_page(one)


def test_the_reference_is_shown_only_on_request() -> None:
    assert "Human 0" in as_page(key_of(2, with_reference=True))
    assert key_of(2, with_reference=True).sheet != key_of(2).sheet
    assert key_of(2).pairs[0].reference is None


def test_the_page_loads_nothing_and_labels_everything() -> None:
    page = Page(as_page(key_of(2)))
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "srcset", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert page.unlabelled == []
    assert ("html", {"lang": "en"}) in page.elements
    assert any(a.get("name") == "viewport" for _, a in page.elements)
    policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy


def test_an_answer_cannot_break_out_of_its_place() -> None:
    key = make_key([Answered(record(1), HOSTILE, "plain")], ("m", "n"), seed=1, settings={})
    page = Page(as_page(key))
    assert len(page.scripts) == 2
    [pair] = json.loads(page.scripts[0])["pairs"]
    assert HOSTILE in (pair["left"], pair["right"])


def test_no_pairs_no_sheet() -> None:
    with pytest.raises(InputError, match="no pair to judge"):
        make_key([], ("m", "n"), seed=1, settings={})


DRIVER = """
const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
const write = (id, text) => { $(id).value = text; $(id).dispatchEvent(new Event("input", { bubbles: true })); };
const seen = {};
seen.start = $("heading").textContent + " / " + $("done").textContent;
seen.left = $("left").textContent;
seen.html = document.querySelectorAll(".answer script").length;
press("1"); press("n"); press("4");
write("remark", "odd <b>");
save();
seen.nameless = $("said").textContent;
write("judge", " Ann ");
$("next").click();
document.querySelector("input[value=tie]").click();
$("remark").dispatchEvent(new KeyboardEvent("keydown", { key: "2", bubbles: true }));
seen.third = verdict(2).choice;
$("clear").click();
seen.cleared = radios.some(radio => radio.checked);
seen.counted = $("done").textContent;
seen.restored = JSON.stringify(restore()) === JSON.stringify(state) && kept;
seen.file = filled();
document.title = "driven";
document.body.textContent = "";
document.body.append(Object.assign(document.createElement("pre"), { id: "seen", textContent: JSON.stringify(seen) }));
"""


class Seen(HTMLParser):
    text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag == "pre"

    def handle_data(self, data: str) -> None:
        self.text += data if getattr(self, "inside", False) else ""


def test_a_judge_at_a_browser(tmp_path: Path) -> None:
    """The real page from a file in a real browser, its keys pressed by a script that is put below it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("needs Chromium, to run the page")
    pairs = [Answered(record(n), HOSTILE, HOSTILE) for n in range(3)]
    key = make_key(pairs, ("m", "n"), seed=1, settings={})
    page = as_page(key).replace("</body>", f"<script>{DRIVER}</script></body>")
    (tmp_path / "sheet.html").write_text(page, encoding="utf-8")
    how = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [browser, *how, (tmp_path / "sheet.html").as_uri()], capture_output=True, check=False, timeout=120
    )
    found = Seen()
    found.feed(done.stdout.decode())
    assert found.text, done.stderr.decode()[-2000:]
    seen = json.loads(found.text)
    assert seen.pop("file") == {
        "kind": "roslin pairwise verdicts",
        "sheet": key.sheet,
        "judge": "Ann",
        "verdicts": [
            {"item": 1, "choice": "left", "remark": ""},
            {"item": 2, "choice": "both_bad", "remark": "odd <b>"},
        ],
    }
    assert seen == {
        "start": "Instruction 1 of 3 / 0 of 3 judged",
        "left": HOSTILE,
        "html": 0,
        "nameless": "Give a name first: it tells the files of several judges apart.",
        "third": "tie",
        "cleared": False,
        "counted": "2 of 3 judged",
        "restored": True,
    }
