"""A real GGUF file, SmolLM2-135M-Instruct as Q4_1, against transformers' own reading of it."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from tokenizers import pre_tokenizers

from roslin.answer.prompts import ChatPrompts, choose_prompts
from roslin.model import ModelConfig
from roslin.model.gguf_model import read_gguf
from roslin.tokens import Tokenizer
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


def test_every_tensor_is_what_transformers_makes_of_it(smollm2: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent,
        gguf_file=smollm2.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    found = read_gguf(smollm2)
    state = model.state_dict()
    assert found.tensors.keys() == state.keys() - {"lm_head.weight"}
    assert [name for name, tensor in found.tensors.items() if not torch.equal(tensor.read(), state[name])] == []
    model.config.rms_norm_eps = 1e-5  # it keeps what float32 made of that
    assert ModelConfig.from_hf(found.config_values) == ModelConfig.from_hf(model.config.to_dict())


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
