"""Export to GGUF: the tensors of llama.cpp's converter, our reader's logits, and llama.cpp itself."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from exported import MODELS, TOKENS, keyed_tokenizer, made, sentencepiece_tokenizer
from gguf_files import converted
from roslin.errors import InputError
from roslin.gguf_file import open_gguf
from roslin.model import Decoder, load_config, load_decoder
from roslin.model.gguf_tensor import GgufTensor
from roslin.publish import gguf_weights
from roslin.publish.export import export, format_of
from roslin.publish.export_gguf import GgufExport, Quantize
from roslin.publish.parity import AWKWARD, TEXTS, ParityError, Tolerance, compare_logits, decoder_logits, parity_ids
from roslin.tokens import Tokenizer
from side_packages import side_package

LLAMA_CPP = "xllamacpp==2026.10.11549"
STRINGS = [part for parts in TEXTS for part in parts] + list(AWKWARD)
FAMILIES = [family for family in MODELS if family != "gptj"]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tied neox": ("gpt_neox", {"tie_word_embeddings": True}),
    "sequential neox": ("gpt_neox", {"use_parallel_residual": False}),
    "neox without biases": ("gpt_neox", {"attention_bias": False}),
    "another rotary base": ("gpt_neox", {"rotary_base": 50000.0}),
    "rows that blocks do not fill": ("gpt_neox", {"hidden_size": 48}),
    "tied llama": ("llama", {"tie_word_embeddings": True}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "Llama 3's positions": ("llama", {"rope_scaling": LLAMA3, "max_position_embeddings": 65536}),
    "YaRN": ("llama", {"rope_scaling": YARN, "max_position_embeddings": 256}),
    "linear positions": ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    "a window": ("mistral", {"sliding_window": 32}),
}


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keyed_tokenizer(base_folder, tmp_path_factory.mktemp("keyed"))


def exported(source: Path, folder: Path, quantize: Quantize = "f16") -> Path:
    return export(str(source), folder, format_of("gguf", None, quantize)).folder / f"model-{quantize}.gguf"


@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_are_those_of_llama_cpps_converter(family: str, tokenizer: Path, tmp_path: Path) -> None:
    source = made(family, tmp_path / "source", tokenizer)
    file = open_gguf(exported(source, tmp_path / "out"))
    model = AutoModelForCausalLM.from_pretrained(source)
    if family == "mistral":  # a Llama to llama.cpp, and to the converter in these tests
        model.config.model_type = "llama"
    wanted = converted(model)
    assert {entry.name for entry in file.entries} == set(wanted)
    for entry in file.entries:
        found, theirs = GgufTensor.of(entry).read(), wanted[entry.name]
        rows = TOKENS if entry.name in ("token_embd.weight", "output.weight") else len(theirs)
        assert torch.equal(found, theirs[:rows].to(torch.float16 if theirs.ndim == 2 else torch.float32)), entry.name


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_come_back_with_their_logits(variant: str, tokenizer: Path, tmp_path: Path) -> None:
    """The export raises where they do not; what it says is checked against another pass over the two models."""
    family, changes = VARIANTS[variant]
    source = made(family, tmp_path / "source", tokenizer, **changes)
    file = exported(source, tmp_path / "out")
    ours, before = load_decoder(file, dtype=torch.float32), load_decoder(source)
    ids = [torch.arange(start, start + 30).tolist() for start in (40, 900, TOKENS - 30)]
    error = (decoder_logits(ours, ids) - decoder_logits(before, ids)[:, :TOKENS]).abs()
    assert error.max() < 0.2
    assert ours.config.positions == (changes.get("sliding_window") or before.config.positions)


@pytest.mark.parametrize("family", FAMILIES)
def test_eight_bits_are_within_their_rounding(family: str, tokenizer: Path, tmp_path: Path) -> None:
    source = made(family, tmp_path / "source", tokenizer)
    done = export(str(source), tmp_path / "out", format_of("gguf", None, "q8_0"))
    error = done.parity.weight_error
    assert error is not None and 0.003 < error < 1 / 254 + 2**-11 + 1e-5


def test_four_bits_of_the_base_keep_embedding_and_head_in_eight(tmp_path: Path) -> None:
    done = export("base", tmp_path / "out", format_of("gguf", None, "q4_0"))
    file = open_gguf(done.folder / "model-q4_0.gguf")
    packings = {entry.name: gguf.GGMLQuantizationType(entry.packing).name for entry in file.entries}
    assert packings["token_embd.weight"] == packings["output.weight"] == "Q8_0"
    assert {packings[name] for name in packings if name.endswith("attn_qkv.weight")} == {"Q4_0"}
    assert {packings[name] for name in packings if "norm" in name or name.endswith("bias")} == {"F32"}
    assert done.size < 16e6
    assert (done.folder / "NOTICE.md").is_file()


def test_the_tokenizer_is_the_models_with_its_added_tokens(tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer)
    file = exported(source, tmp_path / "out")
    ours, theirs = Tokenizer.load(file), Tokenizer.load(tokenizer)
    assert ours.marked_backend().get_vocab() == theirs.marked_backend().get_vocab()
    assert ours.prompt_ids("Hi", "there") == theirs.prompt_ids("Hi", "there")
    values = gguf.GGUFReader(file).fields
    assert values["tokenizer.ggml.pre"].contents() == "olmo"
    assert values["tokenizer.ggml.eot_token_id"].contents() == theirs.end_id
    kinds = values["tokenizer.ggml.token_type"].contents()
    assert len(kinds) == TOKENS
    assert kinds[-3:] == [gguf.TokenType.CONTROL] * 3


def test_pythias_tokenizer_with_its_tokens_of_spaces(pythia_tokenizer: Path, tmp_path: Path) -> None:
    plain = Tokenizer.load(pythia_tokenizer)
    plain.add_keys()
    plain.save(tmp_path / "tokenizer")
    source = made(
        "gpt_neox", tmp_path / "source", tmp_path / "tokenizer", vocab_size=50304, num_hidden_layers=1, hidden_size=32
    )
    file = exported(source, tmp_path / "out")
    assert load_config(file).vocab_rows == 50280
    text = "def f():\n" + " " * 24 + "return   1"
    assert Tokenizer.load(file).encode(text) == plain.encode(text)


def test_a_sentencepiece_tokenizer_gets_scores_that_merge_alike(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer(tmp_path / "tokenizer")
    source = made("llama", tmp_path / "source", tokenizer, vocab_size=512)
    ours, theirs = Tokenizer.load(exported(source, tmp_path / "out")), Tokenizer.load(tokenizer)
    for text in [*STRINGS, "the nuclear listing of Paris, on a station"]:
        assert ours.encode(text) == theirs.encode(text)
    assert ours.start_ids == theirs.start_ids == [1]


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("gptj", {}, "llama.cpp has no GPT-J"),
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "no dynamic scaling"),
        ("llama", {"rope_scaling": YARN | {"attention_factor": 1.0}}, "YaRN has its own temperature"),
        ("gpt_neox", {"hidden_act": "silu"}, "has GELU, and this one has SiLU"),
        ("llama", {"hidden_act": "gelu"}, "has SiLU, and this one has another"),
        ("qwen3", {"attention_bias": True}, "qwen3 has no biases"),
    ],
)
def test_what_llama_cpp_would_not_run_is_refused(
    family: str, changes: dict[str, Any], told: str, tokenizer: Path, tmp_path: Path
) -> None:
    source = made(family, tmp_path / "source", tokenizer, **changes)
    with pytest.raises(InputError, match=told):
        export(str(source), tmp_path / "out", format_of("gguf"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_queries_left_as_transformers_has_them_are_refused(
    tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made("llama", tmp_path / "source", tokenizer)
    monkeypatch.setattr(gguf_weights, "_turned", lambda name, tensor, heads: gguf_weights._whole(name, tensor))
    with pytest.raises(ParityError, match="error of a weight"):
        export(str(source), tmp_path / "out", format_of("gguf", None, "q8_0"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


class OfLlamaCpp:
    """What llama.cpp makes of a file, in a process of its own."""

    def __init__(self, file: Path, texts: list[list[int]]) -> None:
        out = file.with_suffix(".npy")
        asked = {"file": str(file), "texts": texts, "strings": STRINGS, "out": str(out)}
        done = subprocess.run(
            [sys.executable, Path(__file__).parent.parent / "llama_cpp_logits.py"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": side_package(LLAMA_CPP)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told = json.loads(done.stdout)
        self.tokens, self.ends = told["tokens"], told["ends"]
        self.logits_NV = torch.from_numpy(np.load(out))


def assert_llama_cpp_agrees(file: Path, decoder: Decoder, tolerance: Tolerance) -> None:
    tokenizer = Tokenizer.load(file)
    texts = parity_ids(tokenizer, decoder.config.positions)
    found = OfLlamaCpp(file, texts)
    parity = compare_logits(decoder_logits(decoder, texts), found.logits_NV, tolerance)
    assert parity.faults() == [], str(parity)
    marked = tokenizer.marked_backend()
    assert found.tokens == [marked.encode(text, add_special_tokens=False).ids for text in STRINGS]
    assert {tokenizer.end_id, tokenizer.eos_id} <= set(found.ends)


# llama.cpp takes GPT-NeoX's GELU by tanh, its cache of keys and values is fp16, and it rounds what goes into a product
# with packed weights to 8 bits.
BESIDE_F16 = Tolerance(mean=0.005, largest=0.05, agreement=0.95, weight=0.0)
BESIDE_PACKED = Tolerance(mean=0.05, largest=0.5, agreement=0.9, weight=0.0)


@pytest.mark.full
@pytest.mark.parametrize("variant", [*FAMILIES, *VARIANTS])
def test_llama_cpp_gives_the_same_logits_and_tokens(variant: str, tokenizer: Path, tmp_path: Path) -> None:
    family, changes = VARIANTS.get(variant, (variant, {}))
    source = made(family, tmp_path / "source", tokenizer, **changes)
    file = exported(source, tmp_path / "out")
    assert_llama_cpp_agrees(file, load_decoder(file, dtype=torch.float32), BESIDE_F16)


@pytest.mark.full
@pytest.mark.parametrize("quantize", ["f16", "q8_0", "q4_0"])
def test_llama_cpp_runs_the_base_in_every_packing(quantize: Quantize, tmp_path: Path) -> None:
    file = exported(Path("base"), tmp_path / "out", quantize)
    assert GgufExport(quantize).file == file.name
    beside = BESIDE_F16 if quantize == "f16" else BESIDE_PACKED
    assert_llama_cpp_agrees(file, load_decoder(file, dtype=torch.float32), beside)


@pytest.mark.full
def test_llama_cpp_merges_as_sentencepiece_does(tmp_path: Path) -> None:
    tokenizer = sentencepiece_tokenizer(tmp_path / "tokenizer")
    file = exported(made("llama", tmp_path / "source", tokenizer, vocab_size=512), tmp_path / "out")
    assert_llama_cpp_agrees(file, load_decoder(file, dtype=torch.float32), BESIDE_F16)
