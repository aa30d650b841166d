"""The card: every figure from the evidence, what is missing said, valid metadata, and a person's words kept."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from made_evidence import COMPARISON, everything, loss, tuning
from roslin.errors import InputError
from roslin.publish.card import CardFacts, ModelFiles, gaps, render_card, rerender_card, sections
from roslin.publish.card.results import eval_results_yaml
from roslin.publish.evidence import AdapterEvidence, Evidence, SourceEvidence, Stated, TuningEvidence
from roslin.publish.loss import LossComparison

CARD = Path("README.md")
FILES = ModelFiles(has_keys=True, pipeline=True, modelscope=True, notice="Attributed to somebody.")


def facts(evidence: Evidence | None = None, **changes: Any) -> CardFacts:
    values: dict[str, Any] = {"name": "mine", "files": FILES, "evidence": evidence or Evidence(tuning=tuning())}
    return CardFacts(**values | changes)


def of(**changes: object) -> CardFacts:
    return facts(Evidence(tuning=tuning(**changes)))


def part(run: TuningEvidence, name: str, **changes: object) -> Any:
    return getattr(run, name).model_copy(update=changes)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_every_figure_of_a_run_stands_in_it() -> None:
    text = flat(render_card(facts()))
    for figure in (
        "2.78 billion parameters",
        "400 instruction records",
        "300 open_qa, 100 summarization",
        "3 records reached max_length (2,048 tokens)",
        "120 updates",
        "1.75 epochs",
        "123,456 tokens",
        "654 s",
        "2 × NVIDIA H100 80GB HBM3",
        "0.13 to 0.25 kWh",
        "82 held-out records",
        "3.900 [3.700, 4.100]",
        "-0.800 [-0.900, -0.700]",
        "| open_qa | 60 | 3.900 [3.700, 4.100] | 2.900 [2.700, 3.100] | -1.000 [-1.100, -0.900] |",
        "Other records decided when tuning stopped.",
        "epochs: 2",
        "torch 2.13.0",
        "revision `v0`",
        "cd" * 32,
        "ef" * 32,
        "485 records in the files found 7 exact duplicates and 9 near-duplicates.",
        "4 with an e-mail address",
        "The Pile",
        "Attributed to somebody.",
    ):
        assert figure in text, figure


NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?![\w-]|\.\d)")


def numbers(text: str) -> set[str]:
    """Of prose and tables; the blocks of code are a program's, a recipe's or an answer's."""
    return set(NUMBER.findall(re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)))


def leaves(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [leaf for each in value.values() for leaf in leaves(each)]
    if isinstance(value, list):
        return [leaf for each in value for leaf in leaves(each)]
    if isinstance(value, str):
        return [float(found.replace(",", "")) for found in NUMBER.findall(value)]
    return [float(value)] if isinstance(value, int | float) else []


def test_no_number_stands_in_it_that_is_not_in_the_evidence() -> None:
    """Each is a number of the evidence, rounded as it is shown, or stands in a card without evidence as well."""
    evidence = everything()
    known = leaves(evidence.model_dump(mode="json"))
    derived = [2.775208960, 0.5, 50, 0.1272, 0.2545, 1400, 2]  # billions; energy, its share and watts, boards
    shares = sections(facts(evidence))
    constant = numbers(" ".join(sections(facts(Evidence())).values())) | {"13", "95", "0.05"}
    for name in ("summary", "overview", "dataset", "loss", "responses", "training"):
        for number in numbers(shares[name]) - constant:
            decimals = len(number.partition(".")[2])
            value = float(number.replace(",", ""))
            near = 0.5000001 * 10**-decimals
            assert any(abs(abs(each) - value) <= near for each in (*known, *derived)), (name, number)


def test_an_unknown_folder_is_said_to_be_unknown_and_how_it_can_be_known() -> None:
    card = facts(Evidence(), files=ModelFiles())
    text = flat(render_card(card))
    assert set(gaps(card)) == {"owner", "licence", "limits", "benchmarks", "responses", "tuning", "dataset"}
    for missing, command in (
        ("Not measured: what the model cannot do", "roslin eval MODEL --limits --card"),
        ("Not measured: the benchmarks", "roslin eval MODEL --card"),
        ("Not measured: the answers to held-out records", "roslin eval MODEL --records RECORDS --card"),
        ("Not recorded: who owns the model", "roslin card MODEL --owner NAME"),
        ("Not recorded: the licence of the model", "roslin card MODEL --license LICENCE"),
    ):
        assert missing in text
        assert f"`{command}`" in text
    assert text.count("Not recorded: how the model was made") == 3
    for claim in ("Dolly's prompt", "kWh", "instruction-following", "Attribution", "ModelScope", "LangChain"):
        assert claim not in text
    data = ModelCard(render_card(card)).data.to_dict()
    assert data.keys() == {"library_name", "pipeline_tag"}


def test_what_is_measured_is_no_gap() -> None:
    evidence = everything().model_copy(update={"stated": Stated(owner="Me", licence="mit")})
    assert gaps(facts(evidence)) == {}
    text = render_card(facts(evidence))
    assert "Not measured" not in text
    assert "Not recorded" not in text
    assert "**Owner:** Me" in text


def test_the_hub_s_own_classes_read_its_metadata_and_results() -> None:
    card = ModelCard(render_card(facts(everything())))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model == "EleutherAI/pythia-2.8b"
    assert card.data.to_dict()["base_model_relation"] == "finetune"
    assert card.data.library_name == "transformers"
    assert card.data.language == ["en"]
    assert card.data.datasets == ["owner/data"]
    assert card.data.model_name == "mine"
    found = {result.dataset_name: result for result in card.data.eval_results or []}
    cell = everything().benchmarks[0].own.tasks["arc_easy"]
    assert len(found) == 7
    assert found["arc_easy"].dataset_type == "allenai/ai2_arc"
    assert found["arc_easy"].dataset_config == "ARC-Easy"
    assert found["arc_easy"].metric_type == "acc_norm"
    assert found["arc_easy"].metric_value == pytest.approx(cell.right / cell.asked, abs=1e-6)


def test_the_hub_s_own_parser_reads_the_results_file() -> None:
    from huggingface_hub import parse_eval_result_entries

    text = eval_results_yaml(everything())
    assert text is not None
    entries = {entry.task_id: entry for entry in parse_eval_result_entries(yaml.safe_load(text))}
    assert len(entries) == 7
    cell = everything().benchmarks[0].own.tasks["boolq"]
    assert entries["boolq"].dataset_id == "aps/super_glue"
    assert entries["boolq"].value == pytest.approx(cell.right / cell.asked, abs=1e-6)
    assert f"{cell.right} of 3270 right" in entries["boolq"].notes


def test_a_part_of_a_task_is_no_result_of_it() -> None:
    found = everything()
    task = found.benchmarks[0].own.tasks["piqa"].model_copy(update={"asked": 50, "right": 20})
    own = found.benchmarks[0].own.model_copy(update={"tasks": {"piqa": task}})
    partial = found.model_copy(update={"benchmarks": [found.benchmarks[0].model_copy(update={"own": own})]})
    assert eval_results_yaml(partial) is None
    assert "model-index" not in ModelCard(render_card(facts(partial))).data.to_dict()


def test_categories_of_few_records_have_no_intervals() -> None:
    note = "Categories of fewer than 10 records have no intervals."
    assert note not in render_card(facts())
    few = LossComparison(9, COMPARISON.before, COMPARISON.after, COMPARISON.change)
    text = render_card(of(loss=loss(by_category={"summarization": few})))
    assert "| summarization | 9 | 3.900 | 2.900 | -1.000 |" in text
    assert note in text


def test_a_few_records_give_no_interval() -> None:
    nine = LossComparison(9, COMPARISON.before, COMPARISON.after, COMPARISON.change)
    few = render_card(of(loss=loss(nine, by_category={"open_qa": nine})))
    assert "3.900 [3.700" not in few
    assert "| end key counted | 3.900 | 2.900 | -1.000 |" in few
    assert "too few" in few


def test_small_models_are_said_to_know_nothing() -> None:
    assert "learns the *form*" not in render_card(facts())
    assert "learns the *form*" in render_card(of(parameters=20_000_000))


def test_energy_of_hardware_without_known_power_is_not_estimated() -> None:
    text = render_card(of(course=part(tuning(), "course", gpus=[], hardware="2 CPU threads")))
    assert "kWh" not in text
    assert "Not estimated: the energy" in text


def test_weights_that_the_run_did_not_write_are_said_to_be_others() -> None:
    words = "not byte for byte those that the run wrote"
    assert words not in flat(render_card(facts()))
    assert words in flat(render_card(facts(as_tuned=False)))


def test_energy_of_long_and_short_runs_has_no_powers_of_ten() -> None:
    for seconds, told in ((5e6, "970 to 1,900 kWh"), (0.1, "0.000019 to 0.000039 kWh")):
        text = render_card(facts(Evidence(tuning=tuning(course=part(tuning(), "course", seconds=seconds)))))
        assert told in flat(text)


@pytest.mark.parametrize(
    "notice", ["A\n<!-- /roslin:attribution -->\nB", "<!-- roslin:limits -->", "A\n```\nB", "~~~~a"]
)
def test_a_notice_of_others_cannot_break_the_card(notice: str) -> None:
    given = facts(files=ModelFiles(notice=notice))
    text = render_card(given)
    assert rerender_card(given, CARD, text) == text
    assert all(line.strip(" \\") in text for line in notice.splitlines())


def test_of_very_many_categories_the_largest_are_named() -> None:
    counts = {f"kind{n:04}": 1 + n % 500 for n in range(3000)}
    by_category = dict.fromkeys(counts, COMPARISON)
    run = tuning(records=part(tuning(), "records", by_category=counts), loss=loss(by_category=by_category))
    text = render_card(facts(Evidence(tuning=run)))
    shown = sum(sorted(counts.values())[-20:])
    assert f"{sum(counts.values()) - shown:,} of 2,980 smaller categories" in flat(text)
    assert f"| 2,980 smaller ones | {2980 * COMPARISON.records:,} |" in text
    assert len(text) < 20_000


def test_a_base_s_name_cannot_end_a_cell() -> None:
    run = tuning(base=part(tuning(), "base", words="a|b", hub_name=None))
    assert "| base | `a\\|b`, revision" in render_card(facts(Evidence(tuning=run)))


def test_an_adapter_s_card_says_how_it_is_put_beside_its_base() -> None:
    use = AdapterEvidence(base="EleutherAI/pythia-2.8b", revision="main", rows=50_307, rope_scaling="yarn:4")
    files = ModelFiles(adapter=True, has_keys=True)
    text = render_card(facts(Evidence(tuning=tuning(adapter=use)), files=files))
    data = ModelCard(text).data
    assert (data.library_name, data.base_model) == ("peft", "EleutherAI/pythia-2.8b")
    assert data.to_dict()["base_model_relation"] == "adapter"
    assert "lora" in data.tags
    assert "from_pretrained('EleutherAI/pythia-2.8b', revision='main')" in text
    assert "base.resize_token_embeddings(50307)" in text
    assert "--rope-scaling yarn:4" in text
    assert 'roslin ask ./adapter "' in text
    bare = AdapterEvidence(base="./base", revision=None, rows=None, rope_scaling=None)
    plain = render_card(facts(Evidence(tuning=tuning(adapter=bare)), files=files))
    assert "AutoModelForCausalLM.from_pretrained('./base')\nmodel = PeftModel" in plain
    for words in ("resize_token_embeddings", "stretched"):
        assert words not in plain


def licensed(base: str | None, *records: str | None, stated: str | None = None) -> CardFacts:
    run = tuning()
    sources = [SourceEvidence(name=f"{n}.jsonl", sha256="a", licence=each) for n, each in enumerate(records)]
    changed = tuning(base=part(run, "base", licence=base), records=part(run, "records", sources=sources))
    return facts(Evidence(tuning=changed, stated=Stated(licence=stated)))


@pytest.mark.parametrize(
    ("base", "records", "licence", "told"),
    [
        ("apache-2.0", ["cc0-1.0"], "apache-2.0", []),
        ("apache-2.0", ["cc-by-sa-3.0"], None, ["same licence only"]),
        ("cc-by-sa-4.0", ["cc-by-sa-3.0"], "cc-by-sa-4.0", ["same licence only"]),
        ("cc-by-sa-4.0", [None], "cc-by-sa-4.0", ["0.jsonl is not recorded"]),
        ("apache-2.0", ["mit", "cc-by-nc-4.0"], None, ["cc-by-nc-4.0, which forbids commercial use"]),
        ("cc-by-nc-4.0", ["cc0-1.0"], None, ["forbids commercial use"]),
        ("llama3.1", ["cc0-1.0"], None, ["conditions of its own"]),
        ("apache-2.0", [None], None, ["0.jsonl is not recorded"]),
        (None, ["cc0-1.0"], None, ["base EleutherAI/pythia-2.8b is not recorded"]),
    ],
)
def test_licences_that_limit_use_are_warned_of(
    base: str | None, records: list[str | None], licence: str | None, told: list[str]
) -> None:
    found = licensed(base, *records)
    assert found.licence == licence
    text = render_card(found)
    assert ModelCard(text).data.license == licence
    assert ("Before you use it" in text) == bool(told)
    for words in told:
        assert words in flat(text)
    assert any("choose one with --license" in each for each in found.warnings) == (licence is None)
    chosen = render_card(licensed(base, *records, stated="mit"))
    assert ModelCard(chosen).data.license == "mit"
    assert "Stated by its owner" in chosen


def test_the_card_made_again_is_the_same_and_keeps_a_person_s_words() -> None:
    first = render_card(facts(everything()))
    assert rerender_card(facts(everything()), CARD, first) == first
    own = first.replace("pipeline_tag:", "thumbnail: sheep.png\npipeline_tag:").replace(
        "- dolly\n", "- dolly\n- sheep\n"
    )
    own = own.replace("<!-- roslin:usage", "## Mine\n\nMy words.\n\n<!-- roslin:usage") + "\nMy end.\n"
    changed = everything().model_copy(update={"stated": Stated(owner="Somebody")})
    again = rerender_card(facts(changed), CARD, own)
    assert again.index("roslin:overview") < again.index("## Mine\n\nMy words.") < again.index("## Usage")
    assert again.endswith("\nMy end.\n")
    assert "**Owner:** Somebody" in again
    data = ModelCard(again).data.to_dict()
    assert data["thumbnail"] == "sheep.png"
    assert data["tags"] == ["roslin", "dolly", "instruction-tuned", "sheep"]
    assert rerender_card(facts(changed), CARD, again) == again


def test_an_edited_section_is_not_lost_without_force() -> None:
    edited = render_card(facts()).replace("## Usage\n", "## Usage\n\nCall me first.\n")
    with pytest.raises(InputError, match=r"roslin:usage … --> has been edited.*--force"):
        rerender_card(facts(), CARD, edited)
    assert rerender_card(facts(), CARD, edited, force=True) == render_card(facts())


def test_somebody_else_s_card_is_not_lost_without_force() -> None:
    theirs = "---\nlicense: mit\nthumbnail: a.png\n---\n\n# Theirs\n\nWords.\n"
    with pytest.raises(InputError, match=r"did not write.*--out FILE.*--force"):
        rerender_card(facts(), CARD, theirs)
    forced = rerender_card(facts(), CARD, theirs, force=True)
    assert "Words." not in forced
    assert ModelCard(forced).data.to_dict()["thumbnail"] == "a.png"
    with pytest.raises(InputError, match="no YAML in line"):
        rerender_card(facts(), CARD, "---\na: [\n---\n\n", force=True)


MARKED_UP = st.text(st.sampled_from("ab1 `*_~[](){}<>|#!~\\\n-:/&"), min_size=1, max_size=14).filter(str.strip)


@pytest.mark.full
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=MARKED_UP, base=MARKED_UP, source=MARKED_UP, category=MARKED_UP, recipe=MARKED_UP, owner=MARKED_UP)
def test_names_cannot_change_the_card(
    name: str, base: str, source: str, category: str, recipe: str, owner: str
) -> None:
    """A parser of Markdown finds the parts of an ordinary card, and in them what was given."""
    recipe_yaml = yaml.safe_dump({"output": recipe})
    tokens = parts_of(name, base, source, category, recipe_yaml, owner)
    plain = parts_of("n", "b", "s", "c", "a: b", "o")
    assert [token.type for token in tokens] == [token.type for token in plain]

    inline = [token.children or [] for token in tokens if token.type == "inline"]
    assert shown(inline[0]) == " ".join(name.split())
    assert " ".join(category.split()) in [shown(children) for children in inline]
    codes = [child.content for children in inline for child in children if child.type == "code_inline"]
    assert codes.count(" ".join(base.split())) >= 2
    assert " ".join(source.split()) in codes
    assert recipe_yaml.strip() in [token.content.strip() for token in tokens if token.type == "fence"]
    kinds = {child.type for children in inline for child in children}
    assert not kinds & {"image", "html_inline", "link_open"}


@cache
def parts_of(name: str, base: str, source: str, category: str, recipe_yaml: str, owner: str) -> list[Any]:
    """What a parser of Markdown finds in the card of a run with these names."""
    run = tuning()
    records = part(
        run, "records", sources=[SourceEvidence(name=source, sha256="a", licence="mit")], by_category={category: 400}
    )
    changed = tuning(
        base=part(run, "base", words=base, hub_name=None),
        records=records,
        course=part(run, "course", recipe=recipe_yaml),
        loss=loss(by_category={category: COMPARISON}),
    )
    evidence = everything().model_copy(update={"tuning": changed, "stated": Stated(owner=owner)})
    text = render_card(facts(evidence, name=name)).split("---\n", 2)[2]
    return list(MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text))


def shown(children: list[Any]) -> str:
    return "".join(child.content for child in children)
