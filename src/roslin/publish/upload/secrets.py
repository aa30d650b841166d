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

    The pattern's group `secret`, or the whole, is what a machine drew. Only where a beginning stands is the pattern
    tried, so that a tokenizer of megabytes takes no time.
    """

    kind: str
    beginnings: tuple[str, ...]
    pattern: re.Pattern[str]
    drawn: bool = True

    def places(self, text: str) -> Iterator[int]:
        """Where such secrets stand in a text."""
        for beginning in self.beginnings:
            at = text.find(beginning)
            while at >= 0:
                match = self.pattern.match(text, at)
                if match and (not self.drawn or _is_random(match)):
                    yield at
                at = text.find(beginning, at + 1)


def _form(kind: str, beginnings: str, rest: str) -> Form:
    starts = tuple(beginnings.split())
    start = "|".join(map(re.escape, starts))
    return Form(kind, starts, re.compile(rf"(?<![A-Za-z0-9_-])(?:{start}){rest}"))


_SETTINGS = (
    "HF_TOKEN HUGGINGFACE_HUB_TOKEN HUGGING_FACE_HUB_TOKEN MODELSCOPE_API_TOKEN OPENAI_API_KEY ANTHROPIC_API_KEY "
    "WANDB_API_KEY GITHUB_TOKEN GITLAB_TOKEN DATABRICKS_TOKEN AWS_SECRET_ACCESS_KEY KAGGLE_KEY"
)
FORMS = (
    _form("a Hugging Face token", "hf_ api_org_", r"[A-Za-z0-9]{30,}"),
    _form("a ModelScope token", "ms-", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    _form("an OpenAI or Anthropic key", "sk-", r"(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{20,}"),
    _form("an AWS access key", "AKIA ASIA", r"[A-Z0-9]{16}(?![A-Z0-9])"),
    _form("a GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"[A-Za-z0-9_]{36,}"),
    _form("a GitLab token", "glpat-", r"[A-Za-z0-9_-]{20,}"),
    _form("a Databricks token", "dapi", r"[0-9a-f]{32}(?![0-9a-f])"),
    _form("a Google key", "AIza", r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _form("a Slack token", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs-", r"[A-Za-z0-9-]{20,}"),
    _form(
        "a token that is set",
        f"{_SETTINGS} {_SETTINGS.lower()}",
        r"['\"]?[ \t]*[=:][ \t]*['\"]?(?P<secret>[\w/+.-]{16,}={0,2})",
    ),
    Form("a password in an address", ("://",), re.compile(r"://[^\s/:@'\"<>{}$]+:(?P<secret>[^\s/:@'\"<>{}$]{8,})@")),
    Form("a private key", ("-----BEGIN ",), re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"), drawn=False),
)


def secrets_in(text: str) -> list[tuple[int, str]]:
    """The secrets in a text, by line (from 1) and kind; never the secrets themselves."""
    return sorted({(text.count("\n", 0, at) + 1, form.kind) for form in FORMS for at in form.places(text)})


def _is_random(match: re.Match[str]) -> bool:
    """Whether what was found was drawn by a machine: words joined by hyphens have the same form, but no digits."""
    secret = match.groupdict().get("secret") or match[0][4:]
    return len(set(secret)) >= FEWEST_CHARACTERS and any(map(str.isdigit, secret)) and any(map(str.isalpha, secret))
