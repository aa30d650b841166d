"""The card: valid metadata, and every figure that it is given."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from roslin.publish import AdapterUse, CardFacts, LossComparison, render_card
from roslin.statistics import Interval

COMPARISON = LossComparison(82, Interval(3.9, 3.7, 4.1), Interval(2.9, 2.7, 3.1), Interval(-1.0, -1.1, -0.9))


@pytest.fixture
def facts() -> CardFacts:
    return CardFacts(
        name="mine",
        base="EleutherAI/pythia-2.8b",
        base_model="EleutherAI/pythia-2.8b",
        parameters=2_775_208_960,
        languages=["en"],
        licence="apache-2.0",
        records_source=["mine.jsonl"],
        records_by_category={"open_qa": 300, "summarization": 100},
        dropped=3,
        recipe_yaml="model: EleutherAI/pythia-2.8b\nepochs: 2\n",
        updates=120,
        epochs_seen=1.75,
        tokens=123_456,
        seconds=654.3,
        hardware="NVIDIA H100",
        versions={"roslin": "0.1.0", "torch": "2.13.0"},
        comparison=COMPARISON,
        comparison_without_end=replace(COMPARISON, change=Interval(-0.8, -0.9, -0.7)),
        by_category={"open_qa": replace(COMPARISON, records=60)},
        chosen_on="Other records decided when tuning stopped.",
        notice="Attributed to somebody.",
    )


def test_the_hub_reads_its_metadata(facts: CardFacts) -> None:
    card = ModelCard(render_card(facts))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "EleutherAI/pythia-2.8b"
    assert card.data.library_name == "transformers"
    assert card.data.language == ["en"]


def test_every_figure_stands_in_it(facts: CardFacts) -> None:
    text = render_card(facts)
    for figure in (
        "2.78 billion parameters",
        "400 instruction records",
        "300 open_qa, 100 summarization",
        "3 records reached max_length",
        "120 updates",
        "1.75 epochs",
        "123,456 tokens",
        "654 s",
        "NVIDIA H100",
        "82 held-out records",
        "3.900 [3.700, 4.100]",
        "-0.800 [-0.900, -0.700]",
        "| open_qa | 60 | 3.900 [3.700, 4.100] | 2.900 [2.700, 3.100] | -1.000 [-1.100, -0.900] |",
        "Other records decided when tuning stopped.",
        "epochs: 2",
        "torch 2.13.0",
        "Attributed to somebody.",
    ):
        assert figure in " ".join(text.split()), figure


def test_categories_of_few_records_have_no_intervals(facts: CardFacts) -> None:
    note = "Categories of fewer than 10 records have no intervals."
    assert note not in render_card(facts)
    text = render_card(
        replace(facts, by_category={**facts.by_category, "summarization": replace(COMPARISON, records=9)})
    )
    assert "| summarization | 9 | 3.900 | 2.900 | -1.000 |" in text
    assert note in text


def test_small_models_are_said_to_know_nothing(facts: CardFacts) -> None:
    assert "learns the *form*" not in render_card(facts)
    assert "learns the *form*" in render_card(replace(facts, small=True))


def test_what_was_trained_stands_in_it(facts: CardFacts) -> None:
    assert "Full fine-tuning; loss on response tokens only" in render_card(facts)
    lora = render_card(replace(facts, method="LoRA of rank 8 on q_proj"))
    assert "LoRA of rank 8 on q_proj; loss on response tokens only" in lora
    assert "Full fine-tuning" not in lora


def test_the_card_of_an_adapter_says_how_it_is_put_beside_its_base(facts: CardFacts) -> None:
    use = AdapterUse("EleutherAI/pythia-2.8b", revision="main", rows=50_307, rope_scaling="yarn:4")
    text = render_card(replace(facts, adapter=use))
    data = ModelCard(text).data
    assert (data.library_name, data.base_model) == ("peft", "EleutherAI/pythia-2.8b")
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert "lora" in data.tags
    assert "from_pretrained('EleutherAI/pythia-2.8b', revision='main')" in text
    assert "base.resize_token_embeddings(50307)" in text
    assert "--rope-scaling yarn:4" in text
    assert 'roslin ask ./adapter "' in text

    plain = render_card(replace(facts, base_model=None, adapter=AdapterUse("./base", None, None, None)))
    assert "AutoModelForCausalLM.from_pretrained('./base')\nmodel = PeftModel" in plain
    for words in ("resize_token_embeddings", "stretched", "revision=", "base_model_relation"):
        assert words not in plain


def test_what_is_not_known_is_not_claimed(facts: CardFacts) -> None:
    bare = render_card(replace(facts, licence=None, languages=[], notice="", dropped=0, base="folder", base_model=None))
    for word in ("license:", "language:", "## Attribution", "reached max_length", "base_model:"):
        assert word not in bare


def test_a_few_records_give_no_interval(facts: CardFacts) -> None:
    nine = replace(COMPARISON, records=9)
    few = render_card(replace(facts, comparison=nine, comparison_without_end=nine, by_category={"open_qa": nine}))
    assert "3.900 [3.700" not in few
    assert "| end key counted | 3.900 | 2.900 | -1.000 |" in few
    assert "too few" in few
    assert "3.900 [3.700" in render_card(replace(facts, comparison=replace(COMPARISON, records=10)))


MARKED_UP = st.text(st.sampled_from("ab1 `*_~[](){}<>|#!~\\\n-:/&"), min_size=1, max_size=14).filter(str.strip)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=MARKED_UP, base=MARKED_UP, source=MARKED_UP, category=MARKED_UP, recipe=MARKED_UP)
def test_names_cannot_change_the_card(
    facts: CardFacts, name: str, base: str, source: str, category: str, recipe: str
) -> None:
    """A parser of Markdown finds the parts of an ordinary card, and in them what was given."""
    recipe_yaml = yaml.safe_dump({"output": recipe})
    text = render_card(
        replace(
            facts,
            name=name,
            base=base,
            records_source=[source],
            records_by_category={category: 400},
            by_category={category: COMPARISON},
            recipe_yaml=recipe_yaml,
        )
    )
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text.split("---\n", 2)[2])
    plain = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(render_card(facts).split("---\n", 2)[2])
    assert [token.type for token in tokens] == [token.type for token in plain]

    inline = [token.children or [] for token in tokens if token.type == "inline"]
    assert shown(inline[0]) == " ".join(name.split())
    assert " ".join(category.split()) in [shown(children) for children in inline]
    codes = [child.content for children in inline for child in children if child.type == "code_inline"]
    assert codes.count(" ".join(base.split())) >= 2
    assert " ".join(source.split()) in codes
    assert recipe_yaml.strip() in [token.content.strip() for token in tokens if token.type == "fence"]
    kinds = {child.type for children in inline for child in children}
    assert not kinds & {"image", "html_inline"}
    assert sum(child.type == "link_open" for children in inline for child in children) == 1


def shown(children: list[Any]) -> str:
    return "".join(child.content for child in children)
