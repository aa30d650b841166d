"""The model card: what a tuned model is, what it was made of, how well it does and how sure that is, and its limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from roslin.publish.markdown import code, fenced, plain
from roslin.statistics import FEWEST_FOR_INTERVALS, Interval

FULL = "Full fine-tuning"
TOO_FEW = f"no interval: fewer than {FEWEST_FOR_INTERVALS} held-out records are too few for one"


@dataclass(frozen=True)
class LossComparison:
    """Held-out loss (nats an answer token) of the base and of the tuned model on the same records."""

    records: int
    before: Interval
    after: Interval
    change: Interval
    """Paired over the records: after minus before."""

    @property
    def too_few(self) -> bool:
        """Whether the records are too few for resampling them to say anything."""
        return self.records < FEWEST_FOR_INTERVALS

    def figures(self) -> tuple[str, str, str]:
        """Before, after and change, with their intervals if there are records enough."""
        before, after, change = (
            f"{interval.estimate:.3f}" if self.too_few else str(interval)
            for interval in (self.before, self.after, self.change)
        )
        return before, after, change


@dataclass(frozen=True)
class AdapterUse:
    """What PEFT must be told to put an adapter beside its base."""

    base: str
    """The base's name on the hub, or a path to stand for it."""
    revision: str | None
    rows: int | None
    """What the base's embedding must be resized to; None where it has rows enough."""
    rope_scaling: str | None
    """How the base's positions were stretched, which the adapter's files do not say."""


@dataclass(frozen=True)
class CardFacts:
    """All that a card states. Nothing in a card is written that is not here."""

    name: str
    """Title: of the run, not a path."""
    base: str
    """What was tuned, in words."""
    base_model: str | None
    """Its name on the hub, if it has one."""
    parameters: int
    languages: Sequence[str]
    licence: str | None
    records_source: Sequence[str]
    records_by_category: Mapping[str, int]
    dropped: int
    recipe_yaml: str
    updates: int
    epochs_seen: float
    tokens: int
    seconds: float
    hardware: str
    versions: Mapping[str, str]
    comparison: LossComparison
    comparison_without_end: LossComparison
    by_category: Mapping[str, LossComparison]
    """Of each category's records, the end key counted."""
    chosen_on: str
    """Which records decided when tuning stopped, in words."""
    method: str = FULL
    """What was trained, in words."""
    adapter: AdapterUse | None = None
    """Where the card is of an adapter alone."""
    notice: str = ""
    """Attributions that travel with the base's weights."""
    small: bool = False
    """Whether the model is so small that it learns form only."""


def render_card(facts: CardFacts) -> str:
    """The card as Markdown with the hub's metadata on top."""
    sections = [
        _header(facts),
        f"# {plain(facts.name)}",
        _summary(facts),
        _use() if facts.adapter is None else _use_of_adapter(facts.adapter),
        _results(facts),
        _training(facts),
        _limits(facts),
        _provenance(facts),
    ]
    return "\n\n".join(section.strip() for section in sections if section.strip()) + "\n"


def write_card(facts: CardFacts, folder: Path) -> None:
    """Write README.md, the name under which hubs look for a card."""
    (folder / "README.md").write_text(render_card(facts), encoding="utf-8")


def _header(facts: CardFacts) -> str:
    data = {
        "language": list(facts.languages),
        "license": facts.licence,
        "library_name": "peft" if facts.adapter else "transformers",
        "pipeline_tag": "text-generation",
        "base_model": facts.base_model,
        "base_model_relation": "adapter" if facts.adapter and facts.base_model else None,
        "tags": ["roslin", "dolly", "instruction-tuned", *(["lora"] if facts.adapter else [])],
    }
    known = {key: value for key, value in data.items() if value}
    return f"---\n{yaml.safe_dump(known, sort_keys=False).strip()}\n---"


def _summary(facts: CardFacts) -> str:
    records = f"{sum(facts.records_by_category.values()):,} instruction records with [Roslin](#how-it-was-tuned)"
    size = f"an instruction-following model of {_millions(facts.parameters)} parameters"
    text = f"{size.capitalize()}, made by tuning {code(facts.base)} on {records}."
    if facts.adapter:
        text = f"An adapter, tuned on {records}. Beside its base, {code(facts.base)}, it makes {size}."
    text += " It expects Dolly's prompt."
    if facts.small:
        text += (
            "\n\nA model this small learns the *form* of an answer: to respond to the instruction, and to stop. It "
            "does not learn facts of the world; treat what it states as invented."
        )
    return text


def _use() -> str:
    return """## Use

With this folder as `model`:

```
roslin ask ./model "Explain why leaves change colour."
roslin chat ./model
```

```python
from roslin import Roslin

print(Roslin.load("./model").answer("Explain why leaves change colour.").text)
```

The folder is in transformers' layout: `AutoModelForCausalLM` and `AutoTokenizer` load it with `from_pretrained`.
The prompt ends with `### Response:` and a newline; the model ends its answer with the token `### End`."""


def _use_of_adapter(adapter: AdapterUse) -> str:
    return f"""## Use

With this folder as `adapter`, and its base where `adapter_config.json` says:

```
roslin ask ./adapter "Explain why leaves change colour."
```

With [PEFT](https://github.com/huggingface/peft) and transformers 5:

{fenced(_peft_program(adapter), "python")}

The prompt ends with `### Response:` and a newline; the model ends its answer with the token `### End`.
{_stretched(adapter.rope_scaling)}"""


def _peft_program(adapter: AdapterUse) -> str:
    revision = f", revision={adapter.revision!r}" if adapter.revision else ""
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n",
        f"base = AutoModelForCausalLM.from_pretrained({adapter.base!r}{revision})",
        f"base.resize_token_embeddings({adapter.rows})  # it has no rows for the new keys" if adapter.rows else "",
        'model = PeftModel.from_pretrained(base, "./adapter")',
        'tokenizer = AutoTokenizer.from_pretrained("./adapter")',
    ]
    return "\n".join(line for line in lines if line)


def _stretched(rope_scaling: str | None) -> str:
    if rope_scaling is None:
        return ""
    return (
        f"\nThe base's positions were stretched ({code(rope_scaling)}), and the adapter's files do not say so: give "
        f"`roslin ask` the option {code(f'--rope-scaling {rope_scaling}')}, and transformers the like."
    )


def _results(facts: CardFacts) -> str:
    rows = [
        ("end key counted", facts.comparison),
        ("end key left out", facts.comparison_without_end),
    ]
    table = "\n".join(f"| {' | '.join((name, *comparison.figures()))} |" for name, comparison in rows)
    sure = f"({TOO_FEW})" if facts.comparison.too_few else "with 95 % bootstrap intervals over records"
    categories = "\n".join(
        f"| {plain(name)} | {comparison.records:,} | {' | '.join(comparison.figures())} |"
        for name, comparison in sorted(facts.by_category.items())
    )
    too_few = any(comparison.too_few for comparison in facts.by_category.values())
    without = f"\n\nCategories of fewer than {FEWEST_FOR_INTERVALS} records have no intervals." if too_few else ""
    return f"""## How well it does

Loss on the responses of {facts.comparison.records} held-out records, in nats a token (lower is better),
{sure}; the change is paired. {facts.chosen_on}

| held-out response loss | base | tuned | change |
|---|---|---|---|
{table}

| category | records | base | tuned | change |
|---|---|---|---|---|
{categories}{without}

This is a loss, not a benchmark score: it says how well the model predicts people's answers, not how often it is
right."""


def _training(facts: CardFacts) -> str:
    categories = ", ".join(f"{count:,} {plain(name)}" for name, count in sorted(facts.records_by_category.items()))
    dropped = f" {facts.dropped:,} records reached max_length and were dropped, not cut." if facts.dropped else ""
    return f"""## How it was tuned

- Records: {", ".join(code(source) for source in facts.records_source)} ({categories}).{dropped}
- {facts.updates:,} updates are behind these weights ({facts.epochs_seen:.2f} epochs). The whole run
  took {facts.tokens:,} tokens through the model in {facts.seconds:,.0f} s of stepping on {facts.hardware}.
- {plain(facts.method)}; loss on response tokens only, AdamW with fp32 master weights.
- Versions: {", ".join(f"{name} {version}" for name, version in facts.versions.items())}.

The recipe:

{fenced(facts.recipe_yaml, "yaml")}"""


def _limits(facts: CardFacts) -> str:
    return f"""## Limits

- It answers each instruction by itself and remembers no conversation.
- It states false things fluently, and can repeat what is biased or objectionable in the text that
  {code(facts.base)} was pretrained on and in the records it was tuned on. It has had no safety training.
- It was measured only as stated above. Measure it on your own task before you rely on it."""


def _provenance(facts: CardFacts) -> str:
    return f"## Attribution\n\n{facts.notice.strip()}" if facts.notice else ""


def _millions(count: int) -> str:
    return f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
