"""The likelihood of responses against transformers, and where a response ends among its tokens."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch
from transformers import AutoModelForCausalLM

from roslin import prompt
from roslin.answer import Roslin
from roslin.evaluate.responses import Drawing, judge_responses
from roslin.evaluate.responses.likelihood import ScoredRow, closing_tokens
from roslin.records import Record

RECORDS = [
    Record(instruction="Name a bird.", response="A gull, or a tern.", category="open_qa"),
    Record(instruction="Sum up.", context="It rained all day.", response="Rain — всё.\n\n", category="summarization"),
    Record(instruction="Go on.", response="1\n2\n3"),
]


def test_losses_equal_those_of_transformers(plain: Roslin, tiny_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32).eval()
    backend = tokenizers.Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))
    report = judge_responses(plain, RECORDS, drawing=Drawing(max_new_tokens=2))
    for record, judged in zip(RECORDS, report.judged, strict=True):
        asked = backend.encode(prompt.render_prompt(record.instruction, record.context)).ids
        said = backend.encode(f"{record.response}\n\n{prompt.END_KEY}").ids
        with torch.no_grad():
            logprobs = model(torch.tensor([asked + said])).logits[0].log_softmax(-1)
        each = [-logprobs[len(asked) + place - 1, id].item() for place, id in enumerate(said)]
        own = len(backend.encode(record.response).ids)  # none of these responses shares a token with what follows it
        assert judged.likelihood.nll == pytest.approx(sum(each), abs=1e-3)
        assert judged.likelihood.tokens == len(said)
        assert judged.likelihood.own_nll == pytest.approx(sum(each[:own]), abs=1e-3)
        assert judged.likelihood.own_tokens == own
        assert judged.likelihood.size == len(record.response.encode())


def test_the_loss_with_the_end_key_is_what_scoring_one_gives(keyed: Roslin) -> None:
    report = judge_responses(keyed, RECORDS, drawing=Drawing(max_new_tokens=2))
    for record, judged in zip(RECORDS, report.judged, strict=True):
        alone = keyed.score(record.instruction, record.response, record.context)
        assert judged.likelihood.tokens == alone.tokens
        assert judged.likelihood.nll == pytest.approx(-alone.log_likelihood, abs=1e-3)


def test_a_response_has_the_same_tokens_of_its_own_whether_the_keys_are_tokens_or_text(
    plain: Roslin, keyed: Roslin
) -> None:
    for record in RECORDS:
        fields = record.instruction, record.context, record.response
        text, tokens = ScoredRow.of(plain, *fields), ScoredRow.of(keyed, *fields)
        assert text.own_tokens == tokens.own_tokens
        assert len(text.row.ids) - text.row.start > len(tokens.row.ids) - tokens.row.start


def test_in_a_chat_template_all_but_the_end_of_text_is_the_response(tiny_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chat"
    shutil.copytree(tiny_folder, folder)
    template = "{% for m in messages %}User: {{ m.content }}\n{% endfor %}Assistant:"
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    model = Roslin.load(str(folder), prompt="chat")
    scored = ScoredRow.of(model, "Name a bird.", None, "A gull.\n\n")
    assert scored.own_tokens == len(scored.row.ids) - scored.row.start - 1
    assert model.tokenizer.decode(scored.row.ids[scored.row.start : -1]) == "A gull.\n\n"


@pytest.mark.parametrize(
    ("pieces", "closing"),
    [
        (["A", " gull", ".", "\n\n", "###", " End"], 3),
        (["A", " gull", ".", "\n", "\n", "###", " End"], 4),
        (["A", " gull", ".\n\n", "###", " End"], 2),  # the period is the response's, and so is its token
        (["A", " gull.", "\n\n###", " End"], 2),
        (["A", "\n\n", "\n\n", "###", " End"], 3),  # the response's own newlines stay with it
        (["\n\n", "###", " End"], 2),  # something is always left
    ],
)
def test_the_end_is_found_however_it_is_cut_into_tokens(plain: Roslin, pieces: list[str], closing: int) -> None:
    cutting = SimpleNamespace(decode=lambda ids: "".join(pieces[id] for id in ids))
    model = SimpleNamespace(tokenizer=cutting, prompts=plain.prompts)
    assert closing_tokens(model, range(len(pieces))) == closing  # type: ignore[arg-type]
