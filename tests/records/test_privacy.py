"""Personal and secret matter: found where it is, and not where numbers merely look long."""

import codecs
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from record_files import GOOD, MakeFile, checked, codes
from roslin.records.privacy import is_card_number, private_matter

FOUND = [
    ("e-mail", "Write to ada.lovelace+x@mail.lovelace.uk, please."),
    ("telephone", "Call +44 20 7946 0958 now"),
    ("telephone", "Call (555) 867-5309."),
    ("telephone", "Call 555-867-5309."),
    ("telephone", "Ring 0131 496 0123 after six"),
    ("card", "My card: 4111 1111 1111 1111, thanks"),
    ("telephone", "Ring +4915112345678, whose digits pass for a card's."),
    ("card", "378282246310005"),
    ("secret", "-----BEGIN RSA PRIVATE KEY-----\nMII"),
    ("secret", "aws AKIAIOSFODNN7EXAMPLE"),
    ("secret", "ghp_" + "a1B2" * 9),
    ("secret", "hf_" + "abCDefGHij" * 4),
    ("secret", "sk-proj-" + "a1B2c3D4e5" * 3),
    ("secret", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijklmnop"),
    ("secret", "sk-ant-api03-aB3-dE_6" + "hIjKlMn0" * 10),
    ("e-mail", "Mail eve@example.com.badplace.net or nobody."),
    ("slur", codecs.decode("Gung jbeq vf snttbg.", "rot13")),
]
CLEAN = [
    "The years 1990-2000, the range 100-200 and pi 3.14159265358979.",
    "ISBN 978-0-306-40615-7 and version 1.22.333.4444",
    "2023-04-12 10:30:00, 192.168.100.101, 1,234,567,890,123",
    "The number 4111 1111 1111 1112 has a wrong check digit.",
    "@handle, a@b, 5 @ 3 and user@localhost",
    "Population 7794798739; account 1234567890123",
    "A niggardly raccoon in the cocoon, in Scunthorpe.",
    "task-force, desk-lamp, skeleton",
    "0000 0000 0000 0000",
    "Invented: name@example.com, x@mail.example.org. And y@here.test, (212) 555-0100 and +1 212 555 0199.",
    "sk-learn-is-a-library-of-many-parts",
]


@pytest.mark.parametrize(("kind", "text"), FOUND)
def test_each_kind_is_found_and_not_repeated(kind: str, text: str) -> None:
    found = list(private_matter(f"Before. {text} After."))
    assert [matter.kind for matter in found] == [kind]
    assert not any(word in found[0].message for word in text.split() if len(word) > 7)


@pytest.mark.parametrize("text", CLEAN)
def test_what_merely_looks_alike_is_left_alone(text: str) -> None:
    assert list(private_matter(text)) == []


@given(st.integers(0, 10**14 - 1))
def test_luhn_s_digit_catches_every_single_error(number: int) -> None:
    """Exactly one last digit is right for any beginning, and one wrong digit never passes."""
    start = f"4{number:014d}"
    right = [digit for digit in range(10) if is_card_number(f"{start}{digit}")]
    assert len(right) == 1
    whole = f"{start}{right[0]}"
    place = random.Random(number).randrange(1, 16)
    wrong = whole[:place] + str((int(whole[place]) + 1) % 10) + whole[place + 1 :]
    assert not is_card_number(wrong)


def test_the_check_looks_only_when_asked_and_counts_records(make_file: MakeFile) -> None:
    mail = "a@roslin.uk and b@roslin.uk"
    path = make_file({**GOOD, "response": mail}, {**GOOD, "context": mail, "response": f"{mail}, +44 20 7946 0958"})
    assert codes(checked(path)) == []
    report = checked(path, privacy=True)
    assert codes(report) == [
        (1, "response", "privacy"),
        (2, "context", "privacy"),
        (2, "response", "privacy"),
        (2, "response", "privacy"),
    ]
    assert report.privacy == {"e-mail": 2, "telephone": 1}
    assert report.passes()
    assert "2 times, first at character 1" in report.warnings[0].message
