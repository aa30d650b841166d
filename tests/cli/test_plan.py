"""`roslin plan` as people and scripts run it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

import roslin
from roslin.answer.device import pick_cache
from roslin.cli.plan_serving import serving
from roslin.engine import Engine, fuse
from roslin.memory import GPUS, Kept, Precision, answering, gib
from roslin.model.describe import Description
from roslin.model.published import PUBLISHED
from roslin.tune.alternatives import look_ahead
from roslin.tune.plan import Machine, gpus_of
from roslin.tune.recipe import Recipe
from tiny_decoders import VOCABULARY, tiny_decoder

STARTER = Path(roslin.__file__).parent / "assets" / "records" / "starter.jsonl"
RECIPES = Path(__file__).parents[2] / "recipes"


def planned(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command, where nothing answers on the network and the hub's cache is empty."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "roslin", "plan", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **proxies, "HF_HUB_CACHE": "/nonexistent", "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.full
def test_a_recipe_whose_model_and_records_are_elsewhere() -> None:
    path = RECIPES / "dolly-v2-7b.yaml"
    shown = planned(str(path), "--gpu", "h100")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    config = PUBLISHED["EleutherAI/pythia-6.9b"].config
    plan = look_ahead(Recipe.load(path), config, None, gpus_of("h100")).plan
    assert "lengths as in databricks/databricks-dolly-15k" in words
    assert f"This fits H100 80 GB: {gib(plan.total)} of 79.1 GiB" in words
    for name, count in plan.parts.items():
        assert not count or f"{name} {gib(count)} GiB" in words
    assert (
        f"optimizer.moments=8bit optimizer.gradients=bf16 checkpointing=none tokens_per_pass={plan.tokens_per_pass}"
        in words
    )
    assert "tokens/s" in words
    for gpu in GPUS.values():
        assert gpu.title in words


def test_what_does_not_fit_ends_with_3_and_says_what_helps() -> None:
    shown = planned("EleutherAI/pythia-12b", "--gpu", "h100")
    assert shown.returncode == 3
    words = " ".join(shown.stdout.split())
    assert "This does not fit H100 80 GB" in words
    assert "optimizer.in_backward=true" in words
    assert "2 × H100 80 GB" in words
    assert "Traceback" not in shown.stderr


@pytest.mark.full
def test_settings_override_a_recipe_and_json_has_bytes() -> None:
    shown = planned(str(RECIPES / "dolly-v2-12b.yaml"), "records_per_update=16", "clip_norm=null",
                   "optimizer.in_backward=true", "--gpu", "h100", "--json")  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["in_backward"] is True
    assert found["fits"] is True
    assert found["total"] == sum(found["parts"].values()) <= found["usable"] < found["memory"]
    assert found["tokens_per_second"] > 1000
    assert found["would_do"].keys() == GPUS.keys()
    assert found["would_do"]["h200"][0]["gpus"] == 1


def test_many_gpus() -> None:
    found = json.loads(planned("EleutherAI/pythia-12b", "--gpu", "a100-40", "--count", "8", "--json").stdout)
    assert (found["fits"], found["gpus"], found["shards"]) == (True, 8, 8)
    assert found["parts"]["gathered"] > 0


def test_answering() -> None:
    shown = planned("EleutherAI/pythia-6.9b", "--serve", "--gpu", "a10", "--batch", "4")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert "4 answers at once of 2,048 tokens" in words
    assert "fp32: 25.5 weights" in words
    assert "does not fit A10 24 GB" in words
    # What is left of 94 % of 22 GiB beside the weights and a pass, in tokens of half a MiB.
    assert "In bf16 the cache would hold 8,192 tokens: 4 of 4 answers at the model's full length." in words
    found = json.loads(planned("EleutherAI/pythia-12b", "--serve", "--gpu", "t4", "--json").stdout)
    assert found["answering"]["bf16"]["fits"] is False
    assert found["answering"]["int4"]["fits"] is True
    assert found["most_answers_at_once"]["t4"]["bf16"] == 0 < found["most_answers_at_once"]["h100"]["bf16"]


@pytest.mark.full
def test_answering_that_would_fit_in_4_bits_alone_does_not_fit_as_it_is() -> None:
    """But that it would is said, and by which command."""
    shown = planned("EleutherAI/pythia-12b", "--serve", "--gpu", "t4")
    assert shown.returncode == 3
    words = " ".join(shown.stdout.split())
    assert re.search(r"bf16: [^;]*; does not fit T4", words)
    assert re.search(r"int4: [^;]*; fits T4", words)
    assert "roslin quantize" in words


@pytest.mark.full
def test_answering_with_a_draft_model_and_keys_in_fp8() -> None:
    model, draft = "databricks/dolly-v2-12b", "databricks/dolly-v2-3b"
    asked = [model, "--serve", "--gpu", "h100", "--batch", "40"]
    plain, drafted = (
        json.loads(planned(*asked, *more, "--json").stdout) for more in ([], ["--draft", draft, "--cache", "fp8"])
    )
    assert (plain["draft"], plain["cache"], drafted["draft"], drafted["cache"]) == (None, "auto", draft, "fp8")
    one, other = (found["answering"]["bf16"] for found in (plain, drafted))
    assert other["keys_and_values"] == one["keys_and_values"] / 2
    assert other["draft_weights"] == 2 * PUBLISHED[draft].config.parameter_count
    # 15 of the 40, in 32 layers of 2,560 keys and as many values, of two bytes.
    assert other["draft_keys_and_values"] == 15 * 2048 * 32 * 2 * 2560 * 2
    assert one["fits"] is False and other["fits"] is True
    assert one["cache_tokens"] < 40 * 2048 == other["cache_tokens"]
    most = [found["most_answers_at_once"] for found in (plain, drafted)]
    assert most[0]["h100"]["bf16"] < most[1]["h100"]["bf16"]
    assert most[0]["a100"]["bf16"] > 0 == most[1]["a100"]["bf16"]  # it has no fp8
    shown = planned(*asked, "--draft", draft, "--cache", "fp8")
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    assert f"from {model} with {draft} as its draft model, keys and values in fp8, in GiB:" in words
    assert "5.17 draft weights + 9.38 draft keys and values" in words


@pytest.mark.parametrize("cache", get_args(Kept))
@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_cache_that_is_planned_is_the_engines(
    precision: Precision, dtype: torch.dtype, drafted: bool, cache: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU whose memory is short of what as many answers could need."""
    decoder, draft = (tiny_decoder(family, layers=2).to(dtype) for family in ("gpt_neox", "llama"))
    model, other = (Description(one.config.family, one.config, None, None) for one in (decoder, draft))
    needs = answering(model.config, precision, 400, 20, "cpu", draft=other.config if drafted else None, cache=cache)
    free = 2 * (needs.workspace + needs.draft_keys_and_values // 2 + needs.keys_and_values // 2)
    machine = Machine(free + needs.weights + needs.draft_weights, on_gpu=False)
    monkeypatch.setattr("roslin.engine.capacity.free_memory", lambda device: (free, machine.memory))
    engine = Engine(
        fuse(decoder), VOCABULARY, 20, draft=fuse(draft) if drafted else None, cache_dtype=pick_cache(cache)
    )
    asked = serving(model, machine, None, 20, other if drafted else None, cache)
    assert engine.capacity.tokens == asked.cache_tokens(precision) < 20 * 400


@pytest.mark.full
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["owner/absent"], 1, "hf download owner/absent"),
        (["absent.yaml"], 1, "no such recipe file"),
        (["EleutherAI/pythia-12b", "epochs=3"], 2, "is a model"),
        (["EleutherAI/pythia-12b", "--gpu", "gtx"], 2, "gtx"),
        (["EleutherAI/pythia-12b", "--batch", "4"], 2, "belong to --serve"),
        (["EleutherAI/pythia-12b", "--draft", "base"], 2, "belong to --serve"),
        (["EleutherAI/pythia-12b", "--serve", "--length", "4096"], 1, "2,048 positions"),
        (["EleutherAI/pythia-12b", "--serve", "--draft", "owner/absent"], 1, "hf download owner/absent"),
        (["EleutherAI/pythia-12b", "--serve", "--draft", "EleutherAI/gpt-j-6B"], 1, "50,400 tokens"),
        (["EleutherAI/pythia-12b", "--serve", "--draft", "EleutherAI/pythia-2.8b", "--gpu", "t4"], 3, "leave --draft"),
        (["EleutherAI/pythia-12b", "--serve", "--cache", "fp8", "--gpu", "a10"], 3, "leave --cache out"),
        (["EleutherAI/pythia-12b", "--serve", "--cache", "fp4"], 2, "auto or fp8"),
        (["EleutherAI/pythia-12b", "--count", "0"], 2, "count"),
    ],
)
def test_bad_input_is_told(words: list[str], code: int, said: str) -> None:
    refused = planned(*words)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_machine_itself_is_planned_for_by_default(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: base\nrecords: {STARTER}\noutput: {tmp_path / 'run'}\n", encoding="utf-8")
    shown = planned(str(recipe))
    assert shown.returncode == 0, shown.stderr
    assert "records" in shown.stdout
    assert "databricks" not in shown.stdout
