"""A real GGUF file, SmolLM2-135M-Instruct as Q4_1, against transformers' own reading of it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from rich.console import Console
from tokenizers import pre_tokenizers

from roslin.answer import Roslin
from roslin.answer.prompts import ChatPrompts, choose_prompts
from roslin.cli.records import load_tokenizer, positions
from roslin.model import ModelConfig, PackedAttention, load_decoder, packed_positions
from roslin.model.gguf_model import read_gguf
from roslin.tokens import Tokenizer
from roslin.tune import Recipe
from roslin.workflows.tune import tune
from smollm2 import smollm2_file

pytestmark = pytest.mark.real

TEXTS = [
    "Hello, world!",
    "In  1984,  3.14159 + 2 = 5.14159",
    "def f(x):\n\treturn x ** 2  # it's\r\n\n\n",
    "漢字かな 한국어 עברית ٣٤ ½ ²",
    "👩‍👩‍👧 🇫🇷 🧑🏽 e\u0301 \u00a0\u200b\u2028",
    "<|im_start|>user\n<|endoftext|>",
]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    return smollm2_file()


@pytest.fixture(scope="session")
def theirs(smollm2: Path) -> transformers.PreTrainedTokenizerBase:
    return transformers.AutoTokenizer.from_pretrained(smollm2.parent, gguf_file=smollm2.name)


@pytest.fixture(scope="module")
def model(smollm2: Path) -> transformers.PreTrainedModel:
    """As transformers unpacks it."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent,
        gguf_file=smollm2.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.float32,
    )


def test_every_tensor_is_what_transformers_makes_of_it(smollm2: Path, model: transformers.PreTrainedModel) -> None:
    found = read_gguf(smollm2)
    state = model.state_dict()
    assert found.tensors.keys() == state.keys() - {"lm_head.weight"}
    assert [name for name, tensor in found.tensors.items() if not torch.equal(tensor.read(), state[name])] == []
    values = model.config.to_dict() | {"rms_norm_eps": 1e-5}  # it keeps what float32 made of that
    assert ModelConfig.from_hf(found.config_values) == ModelConfig.from_hf(values)


def true_tokenizer(theirs: transformers.PreTrainedTokenizerBase) -> tokenizers.Tokenizer:
    """transformers' vocabulary and merges with SmolLM2's own cutting.

    Its reader leaves the digits out (as of 5.23), and so has other ids where two spaces or more stand before a number:
    in 117 of the 3,000 responses.
    """
    backend = tokenizers.Tokenizer.from_str(theirs.backend_tokenizer.to_str())
    steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.encode_special_tokens = True
    return backend


def test_ids_are_those_of_the_true_tokenizer(
    smollm2: Path, theirs: transformers.PreTrainedTokenizerBase, shared_data: Path
) -> None:
    lines = (shared_data / "records" / "databricks-dolly-15k.jsonl").read_text(encoding="utf-8").splitlines()
    ours, oracle = Tokenizer.load(smollm2), true_tokenizer(theirs)
    for text in [*TEXTS, *(json.loads(line)["response"] for line in lines[:3000])]:
        ids = ours.encode(text)
        assert ids == oracle.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == text
    assert (ours.size, ours.eos_id, ours.turn_ends) == (len(theirs), theirs.eos_token_id, {0, 2})


def test_its_chat_template_says_the_same_as_in_transformers(
    smollm2: Path, theirs: transformers.PreTrainedTokenizerBase
) -> None:
    """With the system message that the template puts before a conversation without one."""
    tokenizer = Tokenizer.load(smollm2)
    prompts, notice = choose_prompts("auto", tokenizer, smollm2)
    assert isinstance(prompts, ChatPrompts) and notice is None
    for instruction in ("Name three sheep.", "  What?\n"):
        messages = [{"role": "user", "content": instruction}]
        expected = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert prompts.ids(instruction, None) == expected
    assert "You are a helpful AI assistant named SmolLM" in tokenizer.decode(expected)
    assert prompts.stop_ids == {tokenizer.eos_id, 0}


def test_it_is_saved_as_a_transformers_folder(tmp_path: Path, smollm2: Path) -> None:
    ours = Tokenizer.load(smollm2)
    ours.save(tmp_path)
    saved = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert saved.encode(text, split_special_tokens=True) == ours.encode(text)
    messages = [{"role": "user", "content": "Hello"}]
    prompts = ChatPrompts.read(smollm2, ours)
    assert prompts is not None
    assert saved.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompts.ids(
        "Hello", None
    )


def test_records_are_counted_by_its_tokenizer_and_held_against_its_positions(smollm2: Path) -> None:
    assert positions(str(smollm2)) == 8192
    assert load_tokenizer(str(smollm2)).encode("1984") == Tokenizer.load(smollm2).encode("1984")


@torch.no_grad()
def test_logits_are_those_of_transformers(smollm2: Path, model: transformers.PreTrainedModel) -> None:
    decoder = load_decoder(smollm2, dtype=torch.float32)
    lengths = [90, 31]
    ids_N = torch.randint(49152, (sum(lengths),), generator=torch.Generator().manual_seed(0))
    ours_NV = decoder(ids_N, packed_positions(lengths), PackedAttention(lengths))
    theirs_NV = torch.cat([model(run[None]).logits[0] for run in ids_N.split(lengths)])
    assert theirs_NV.std() > 1
    assert ((ours_NV - theirs_NV).abs().max() / theirs_NV.abs().max()).item() < 1e-5


def test_the_command_fetches_it_and_it_knows_the_capital_of_france(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "roslin", "ask", "smollm2", "What is the capital of France?", "--greedy"]
    environment = {**os.environ, "ROSLIN_CACHE": str(tmp_path)}
    first, second = (
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert "Paris" in first.stdout
    assert "Fetching smollm2" in first.stderr
    assert second.stdout == first.stdout
    assert "Fetching" not in second.stderr


def test_the_recipe_tunes_it(smollm2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On few and short records; the held-out loss falls, and what is saved loads in transformers."""
    (tmp_path / "smollm2").mkdir()
    (tmp_path / "smollm2" / smollm2.name).symlink_to(smollm2)
    monkeypatch.setenv("ROSLIN_CACHE", str(tmp_path))
    root = Path(__file__).parents[1]
    starter = root / "src" / "roslin" / "assets" / "records" / "starter.jsonl"
    short = [line for line in starter.read_text(encoding="utf-8").splitlines(keepends=True) if len(line) < 250]
    (tmp_path / "short.jsonl").write_text("".join(short[:40]), encoding="utf-8")
    words = [f"records={tmp_path / 'short.jsonl'}", f"output={tmp_path / 'run'}", "epochs=1", "warmup_updates=0"]
    recipe = Recipe.load(root / "recipes" / "smollm2.yaml", [*words, "evaluate_every=100", "tensorboard=false"])
    folder = tune(recipe, restart=False, console=Console(file=io.StringIO()))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["held_out"] for line in log if line["kind"] == "evaluation"]
    assert losses[-1] < losses[0] - 0.1
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "| licence of the base | `apache-2.0` |" in card
    assert "base_model: HuggingFaceTB/SmolLM2-135M-Instruct" in card
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompt = torch.tensor([Tokenizer.load(folder).prompt_ids("Name a bird.")])
    said = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
    asked = Roslin.load(str(folder), dtype="float32").answer("Name a bird.", greedy=True, max_new_tokens=8)
    assert list(asked.tokens) == said[0, prompt.shape[1] :].tolist()[: len(asked.tokens)]
    adapter = Roslin.load(str(tmp_path / "run" / "adapter"), dtype="float32")
    assert adapter.answer("Name a bird.", greedy=True, max_new_tokens=8).tokens == asked.tokens
