"""Finding passwords, tokens and private keys in text, by the forms that their makers gave them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FEWEST_CHARACTERS = 8
"""Different ones that a secret has at least: `hf_xxxxxxxx…` stands for one in a manual."""


@dataclass(frozen=True)
class Form:
    """What a kind of secret looks like: the texts that it can begin with, and the pattern from there on.

    The pattern's group `secret` is what a machine drew. Only where a beginning stands is the pattern tried, so that a
    tokenizer of megabytes takes no time.
    """

    kind: str
    beginnings: tuple[str, ...]
    pattern: re.Pattern[str]
    run: int = 0
    """Letters and digits that the secret has in a row, with some of each: of kinds that joined words look like."""

    def places(self, text: str) -> Iterator[int]:
        """Where such secrets stand in a text."""
        for beginning in self.beginnings:
            at = text.find(beginning)
            while at >= 0:
                match = self.pattern.match(text, at)
                if match and _is_random(match.groupdict().get("secret"), self.run):
                    yield at
                at = text.find(beginning, at + 1)


def _form(kind: str, beginnings: str, rest: str, run: int = 0) -> Form:
    """A secret that begins a word. JSON's spelling of a new line or tab before it is no part of that word."""
    starts = tuple(beginnings.split())
    start = "|".join(map(re.escape, starts))
    return Form(kind, starts, re.compile(rf"(?:(?<![A-Za-z0-9_-])|(?<=\\[nrt]))(?:{start})(?P<secret>{rest})"), run)


_SETTINGS = (
    "HF_TOKEN HUB_TOKEN MODELSCOPE_API_TOKEN GITHUB_TOKEN GITLAB_TOKEN DATABRICKS_TOKEN ACCESS_TOKEN AUTH_TOKEN "
    "API_KEY APIKEY API-KEY ACCESS_KEY SECRET_KEY SECRET KAGGLE_KEY PASSWORD"
)
_SET = re.compile(r"\w[\w-]*\\?['\"]?\]?[ \t]*[=:][ \t]*\\?['\"]?(?P<secret>[\w/+.-]{16,}={0,2})")
FORMS = (
    _form("a Hugging Face token", "hf_ api_org_", r"[A-Za-z0-9]{30,}"),
    _form("a ModelScope token", "ms-", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    _form("an OpenAI or Anthropic key", "sk-", r"(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{20,}", run=8),
    _form("an AWS access key", "AKIA ASIA", r"[A-Z0-9]{16}(?![A-Z0-9])"),
    _form("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"[A-Za-z0-9_]{36,}", run=8),
    _form("a GitLab token", "glpat-", r"[A-Za-z0-9_-]{20,}"),
    _form("a Databricks token", "dapi", r"[0-9a-f]{32}(?![0-9a-f])"),
    _form("a Google key", "AIza", r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _form("a PyPI token", "pypi-", r"[A-Za-z0-9_-]{50,}"),
    _form("a Slack token", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-", r"[A-Za-z0-9-]{20,}", run=8),
    Form("a token or password that is set", tuple(f"{_SETTINGS} {_SETTINGS.lower()} apiKey".split()), _SET, run=12),
    Form(
        "a password in an address",
        ("://",),
        re.compile(r"://[^\s/:@'\"<>{}$]+:(?P<secret>[^\s/:@'\"<>{}$]{8,})@"),
        run=1,
    ),
    Form("a private key", ("-----BEGIN ",), re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY(?: BLOCK)?-----")),
    Form("a private key", ("PuTTY-User-Key-File-",), re.compile(r"PuTTY-User-Key-File-\d")),
)


def secrets_in(text: str) -> list[tuple[int, str]]:
    """The secrets in a text, by line (from 1) and kind; never the secrets themselves."""
    return sorted({(text.count("\n", 0, at) + 1, form.kind) for form in FORMS for at in form.places(text)})


def _is_random(secret: str | None, run: int) -> bool:
    """Whether what was found was drawn by a machine, which the beginnings of private keys need not be."""
    if secret is None:
        return True
    if len(set(secret)) < FEWEST_CHARACTERS:
        return False
    if not run:
        return True
    if not (any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))):
        return False
    return max(map(len, re.findall(r"[A-Za-z0-9]+", secret)), default=0) >= run
