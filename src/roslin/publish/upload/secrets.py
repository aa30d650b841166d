"""Finding passwords, tokens and private keys in text, by the forms that their makers gave them."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """What a kind of secret looks like: a pattern whose group `secret`, or the whole, is what must not be shown."""

    kind: str
    pattern: re.Pattern[str]


def _form(kind: str, pattern: str) -> Form:
    return Form(kind, re.compile(rf"(?<![A-Za-z0-9_-])(?:{pattern})"))


_SETTINGS = "HF_TOKEN|HUGGING_?FACE_HUB_TOKEN|MODELSCOPE_API_TOKEN|OPENAI_API_KEY|ANTHROPIC_API_KEY|WANDB_API_KEY"
_MORE_SETTINGS = "GITHUB_TOKEN|GITLAB_TOKEN|DATABRICKS_TOKEN|AWS_SECRET_ACCESS_KEY|AZURE_[A-Z_]*KEY|KAGGLE_KEY"
FORMS = (
    _form("a Hugging Face token", r"(?:hf|api_org)_[A-Za-z0-9]{30,}"),
    _form("a ModelScope token", r"ms-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    _form("an OpenAI or Anthropic key", r"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?[A-Za-z0-9_-]{20,}"),
    _form("an AWS access key", r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])"),
    _form("a GitHub token", r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}"),
    _form("a GitLab token", r"glpat-[A-Za-z0-9_-]{20,}"),
    _form("a Databricks token", r"dapi[0-9a-f]{32}(?:-\d)?(?![0-9a-f])"),
    _form("a Google key", r"AIza[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])"),
    _form("a Slack token", r"xox[abeoprs]-[A-Za-z0-9-]{20,}"),
    _form(
        "a token that is set", rf"(?i:{_SETTINGS}|{_MORE_SETTINGS})['\"]?\s*[=:]\s*['\"]?(?P<secret>[\w/+.=-]{{16,}})"
    ),
    _form("a password in an address", r"[a-z][a-z0-9+.]*://[^\s/:@'\"<>{}$]+:(?P<secret>[^\s/:@'\"<>{}$]{8,})@"),
)
PRIVATE_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")
FEWEST_CHARACTERS = 8
"""Different ones that a secret has at least: `hf_xxxxxxxx…` stands for one in a manual."""


def secrets_in(text: str) -> list[tuple[int, str]]:
    """The secrets in a text, by line (from 1) and kind; never the secrets themselves."""
    found = {
        (_line(text, m.start()), form.kind) for form in FORMS for m in form.pattern.finditer(text) if _is_random(m)
    }
    keys = {(_line(text, match.start()), "a private key") for match in PRIVATE_KEY.finditer(text)}
    return sorted(found | keys)


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _is_random(match: re.Match[str]) -> bool:
    """Whether what was found was drawn by a machine: words joined by hyphens have the same form, but no digits."""
    secret = match.groupdict().get("secret") or match[0]
    drawn = secret[4:] if len(secret) > 20 else secret
    return len(set(drawn)) >= FEWEST_CHARACTERS and any(c.isdigit() for c in drawn) and any(c.isalpha() for c in drawn)
