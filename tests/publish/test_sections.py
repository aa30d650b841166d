"""Sections of a card: put in, replaced, and nothing else moved by a byte."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roslin.errors import InputError
from roslin.publish.sections import CARD as CARD_NAME
from roslin.publish.sections import edited_sections, marked, put_section, require_card, with_sections

CARD = """---
license: apache-2.0
---

# mine

```yaml
# ## Attribution stands in code here
## Attribution
<!-- roslin:limits -->
```

## Limits

It forgets.

## Attribution

Of somebody.
"""
SECTION = marked("limits", "## Probes\n\nFound.\n")
OLD = "<!-- roslin:limits -->\n## Probes\n\nFound.\n<!-- /roslin:limits -->"
"""Without the hash that tells whether it was edited."""


def card(folder: Path, text: str) -> Path:
    path = folder / "README.md"
    path.write_bytes(text.encode())
    return path


def put(folder: Path, markdown: str = "## Probes\n\nFound.\n") -> str:
    assert put_section(folder, "limits", markdown) == folder / "README.md"
    return (folder / "README.md").read_bytes().decode()


def test_a_new_section_goes_before_the_attribution(tmp_path: Path) -> None:
    card(tmp_path, CARD)
    head, tail = CARD[: CARD.rindex("## Attribution")], CARD[CARD.rindex("## Attribution") :]
    assert put(tmp_path) == f"{head}{SECTION}\n\n{tail}"


@pytest.mark.parametrize(("text", "gap"), [("# mine\n", "\n"), ("# mine", "\n\n"), ("# mine\n\n", ""), ("", "")])
def test_without_attribution_it_goes_to_the_end(tmp_path: Path, text: str, gap: str) -> None:
    card(tmp_path, text)
    assert put(tmp_path) == f"{text}{gap}{SECTION}\n"


@pytest.mark.parametrize("section", [SECTION, OLD])
def test_a_section_is_replaced_where_it_stands(tmp_path: Path, section: str) -> None:
    card(tmp_path, f"# mine\n\n{section}\n\nA person's words.  \n\ttabs\n\n## Attribution\n")
    text = put(tmp_path, "New.")
    wanted = f"# mine\n\n{marked('limits', 'New.')}\n\nA person's words.  \n\ttabs\n\n"
    assert text == wanted + "## Attribution\n"
    assert put(tmp_path, "New.") == text


def test_sections_of_other_names_stay(tmp_path: Path) -> None:
    card(tmp_path, CARD)
    put_section(tmp_path, "table", "| a |\n|---|")
    before = (tmp_path / "README.md").read_text()
    put_section(tmp_path, "limits", "One.")
    put_section(tmp_path, "limits", "Two.")
    after = (tmp_path / "README.md").read_text()
    assert after.replace(marked("limits", "Two.") + "\n\n", "") == before


def test_line_ends_of_windows_stay(tmp_path: Path) -> None:
    card(tmp_path, CARD.replace("\n", "\r\n"))
    for _ in range(2):
        text = put(tmp_path)
        assert text.replace("\r\n", "").count("\n") == 0
        assert SECTION.replace("\n", "\r\n") in text
    assert text.replace(SECTION.replace("\n", "\r\n") + "\r\n\r\n", "") == CARD.replace("\n", "\r\n")


PIECES = ("# mine", "", "```", "````yaml", "~~~", "## Attribution", " text", "<!-- other -->", "é\t", "## Limits")


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.booleans())
def test_all_else_stays_byte_for_byte(tmp_path_factory: pytest.TempPathFactory, pieces: list[str], ended: bool) -> None:
    folder = tmp_path_factory.mktemp("card")
    text = "\n".join(pieces) + ("\n" if ended else "")
    card(folder, text)
    first = put(folder, "One.")
    start = first.index(marked("limits", "One."))
    end = first.index("<!-- /roslin:limits -->") + len("<!-- /roslin:limits -->")
    before, after = first[:start], first[end:]
    assert (before + after.removeprefix("\n").removeprefix("\n")).replace("\n", "") == text.replace("\n", "")
    assert text.startswith(before.rstrip("\n"))
    assert text.endswith(after.lstrip("\n"))
    if not _open(before):  # a card whose fence is never closed shows the section as code, and can only get another
        assert put(folder, "Two.") == f"{before}{marked('limits', 'Two.')}{after}"


def _open(text: str) -> bool:
    from roslin.publish.sections import _outside_fences

    return "LAST" not in [line for _, line in _outside_fences(text + "LAST")]


def test_a_folder_without_a_card_is_told(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        for act in (lambda of=folder: put_section(of, "limits", "x"), lambda of=folder: require_card(of, "limits")):
            with pytest.raises(InputError, match=r"has no README\.md.*make a card there first: roslin card"):
                act()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "marks",
    [
        "<!-- roslin:limits -->",
        "<!-- /roslin:limits -->",
        "<!-- /roslin:limits -->\n<!-- roslin:limits -->",
        f"{SECTION}\n{SECTION}",
    ],
)
def test_marks_that_do_not_match_are_not_guessed_at(tmp_path: Path, marks: str) -> None:
    path = card(tmp_path, f"# mine\n{marks}\n")
    before = path.read_bytes()
    with pytest.raises(InputError, match="once each, in that order"):
        put_section(tmp_path, "limits", "x")
    with pytest.raises(InputError, match="once each, in that order"):
        require_card(tmp_path, "limits")
    assert path.read_bytes() == before


def test_a_card_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(b"# mine \xff")
    with pytest.raises(InputError, match="not valid UTF-8 at byte 7"):
        put_section(tmp_path, "limits", "x")


@pytest.mark.parametrize("markdown", ["a\n<!-- /roslin:limits -->\nb", "```\nnever closed"])
def test_a_section_cannot_end_itself_or_swallow_its_end(tmp_path: Path, markdown: str) -> None:
    card(tmp_path, CARD)
    with pytest.raises(ValueError, match="end mark, or a fence"):
        put_section(tmp_path, "limits", markdown)
    with pytest.raises(ValueError, match="no name of a section"):
        put_section(tmp_path, "--> x", "a")
    assert (tmp_path / "README.md").read_text() == CARD


def test_a_card_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = card(tmp_path, CARD)
    path.chmod(0o640)
    put(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.read_bytes()

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(Exception, match="the disk is full"):
        put_section(tmp_path, "limits", "Other.")
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["README.md"]


def test_a_card_in_the_hubs_cache_is_not_written_through_its_link(tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_text(CARD)
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "README.md").symlink_to(blob)
    assert SECTION in put(folder)
    assert blob.read_text() == CARD


def test_words_written_into_a_section_are_seen_and_not_lost(tmp_path: Path) -> None:
    put_into = card(tmp_path, CARD)
    put(tmp_path)
    put_into.write_text(put_into.read_text().replace("Found.", "Found. And I say more."))
    before = put_into.read_bytes()
    for act in (lambda: put(tmp_path), lambda: require_card(tmp_path, "limits")):
        with pytest.raises(InputError, match=r"roslin:limits … --> has been edited.*Move your own words"):
            act()
    assert put_into.read_bytes() == before
    assert edited_sections(put_into, put_into.read_text(), ["limits", "table"]) == ["limits"]


def test_blanks_and_line_ends_are_no_edit(tmp_path: Path) -> None:
    path = card(tmp_path, CARD)
    put(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"Found.", b"Found.  ").replace(b"\n", b"\r\n"))
    assert edited_sections(path, path.read_bytes().decode(), ["limits"]) == []


def test_many_sections_keep_their_order_and_the_words_between_them() -> None:
    path = Path(CARD_NAME)
    first = with_sections(path, "", {"one": "1", "two": "2", "three": "3"})
    assert (
        first
        == "\n\n".join(marked(name, text) for name, text in zip(("one", "two", "three"), "123", strict=True)) + "\n"
    )
    own = "My words.\n\n" + first.replace(marked("two", "2"), marked("two", "2") + "\n\nMore of mine.") + "\nThe end.\n"
    again = with_sections(path, own, {"one": "1", "new": "n", "two": "22", "three": ""})
    parts = [marked("one", "1"), marked("new", "n"), marked("two", "22")]
    assert again.split() == " ".join(["My words.", *parts, "More of mine.", "The end."]).split()
    assert with_sections(path, again, {"one": "1", "new": "n", "two": "22", "three": ""}) == again
