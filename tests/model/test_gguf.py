"""Models out of GGUF files, with the transformers models that they were written from as the oracle."""

import math
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf import GGMLQuantizationType as Packing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gguf_files import ARCHITECTURES, converted, tiny_model, write_model
from roslin.errors import InputError
from roslin.gguf_file import GgufEntry, open_gguf
from roslin.model import ModelConfig
from roslin.model.gguf_model import GgufModel, read_gguf
from roslin.model.gguf_tensor import CHUNK, GgufTensor

FAMILIES = pytest.mark.parametrize("family", list(ARCHITECTURES))


def saved_state(model: transformers.PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights as files have them: transformers 5 calls GPT-NeoX's head by another name, and files do not."""
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    elif model.config.model_type == "gpt_neox" and "lm_head.weight" in state:
        state["embed_out.weight"] = state.pop("lm_head.weight")
    return state


def assert_same_weights(found: GgufModel, model: transformers.PreTrainedModel) -> None:
    state = saved_state(model)
    assert found.tensors.keys() == state.keys()
    assert [name for name in state if not torch.equal(found.tensors[name].read(), state[name])] == []
    for name, tensor in state.items():
        assert (found.tensors[name].shape, found.tensors[name].dtype) == (tensor.shape, tensor.dtype)


def assert_same_config(found: GgufModel, model: transformers.PreTrainedModel) -> None:
    """The same to Roslin as the config.json that transformers writes."""
    assert ModelConfig.from_hf(found.config_values) == ModelConfig.from_hf(model.config.to_dict())


@FAMILIES
def test_weights_and_config_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    found = read_gguf(write_model(tmp_path / "m.gguf", model))
    assert_same_weights(found, model)
    assert_same_config(found, model)


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", {"num_key_value_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 5e5}),
        ("llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": True, "rope_theta": 1e6}),
        ("qwen3", {"head_dim": 32, "attention_bias": True}),
        ("gpt_neox", {"use_parallel_residual": False, "rotary_pct": 1.0, "layer_norm_eps": 1e-6}),
        ("gpt_neox", {"num_attention_heads": 2, "rotary_pct": 0.5}),
    ],
)
def test_what_models_of_a_family_differ_in(tmp_path: Path, family: str, overrides: dict[str, Any]) -> None:
    model = tiny_model(family, **overrides)
    found = read_gguf(write_model(tmp_path / "m.gguf", model))
    assert_same_weights(found, model)
    assert_same_config(found, model)


@FAMILIES
@pytest.mark.parametrize("packing", [Packing.F16, Packing.BF16, Packing.Q8_0, Packing.Q5_1, Packing.Q4_0, Packing.Q4_1])
def test_packed_weights(tmp_path: Path, family: str, packing: Packing) -> None:
    """Packing rounds a row by itself, so the oracle is the model with each row of its matrices packed and unpacked."""
    model = tiny_model(family)
    found = read_gguf(write_model(tmp_path / "m.gguf", model, packing))
    plain = {Packing.F16: torch.float16, Packing.BF16: torch.bfloat16}
    for name, tensor in saved_state(model).items():
        rounded = gguf.dequantize(gguf.quantize(tensor.numpy(), packing), packing) if tensor.ndim == 2 else tensor
        read = found.tensors[name].read()
        assert read.dtype == (plain.get(packing, torch.float32) if tensor.ndim == 2 else torch.float32)
        assert torch.equal(read.float(), torch.as_tensor(rounded)), name
        place = torch.empty(tensor.shape, dtype=torch.bfloat16)
        found.tensors[name].read_into(place)
        assert torch.equal(place, read.bfloat16()), name


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_transformers_reads_the_same_file_alike(tmp_path: Path, family: str) -> None:
    """Its own reader checks the files of these tests: they are as llama.cpp's converter writes them."""
    values = {"tokenizer.ggml.model": "gpt2"}
    write_model(tmp_path / "m.gguf", tiny_model(family), Packing.Q8_0, values=values)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype=torch.float32)
    found = read_gguf(tmp_path / "m.gguf")
    assert_same_weights(found, oracle)
    oracle.config.rms_norm_eps = 1e-6  # it keeps what float32 made of that
    assert_same_config(found, oracle)


@pytest.mark.parametrize("packing", sorted(set(Packing) - {Packing.F32, Packing.F16}))
def test_every_packing_that_can_be_undone(tmp_path: Path, packing: Packing) -> None:
    """Random bytes, as the `gguf` package unpacks them in one go; more of them than are unpacked at once."""
    block, size = gguf.GGML_QUANT_SIZES[packing]
    shape = (7, block * math.ceil(CHUNK / block / 5))
    packed = np.random.default_rng(0).integers(0, 256, (7, shape[1] // block * size), np.uint8)
    path = tmp_path / "numbers"
    path.write_bytes(b"before" + packed.tobytes())
    entry = GgufEntry(path, "blk.0.ffn_up.weight", int(packing), shape, len(b"before"))
    try:
        with np.errstate(all="ignore"):
            expected = torch.from_numpy(gguf.dequantize(packed, packing))
    except NotImplementedError:
        with pytest.raises(InputError, match=f"ffn_up.weight is packed as {packing.name}, which Roslin does not"):
            GgufTensor.of(entry)
        return
    with np.errstate(all="ignore"):
        found = GgufTensor.of(entry).read()
    assert torch.equal(found.float().nan_to_num(), expected.nan_to_num())


def test_reading_a_tensor_takes_no_more_memory_than_its_place(tmp_path: Path) -> None:
    """What is packed is read and unpacked a chunk at a time."""
    tensor = np.random.default_rng(0).standard_normal((64, CHUNK // 16), np.float32)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("x", gguf.quantize(tensor, Packing.Q8_0), raw_dtype=Packing.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    [entry] = open_gguf(tmp_path / "m.gguf").entries
    chunks = list(GgufTensor.of(entry)._chunks())
    assert [len(chunk) for chunk in chunks] == [CHUNK] * 4
    np.testing.assert_allclose(torch.cat(chunks).view(tensor.shape), tensor, atol=0.05)


@FAMILIES
def test_parts_of_a_split_file_are_one_model(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    write_model(tmp_path / "m.gguf", model, split=9)
    parts = sorted(tmp_path.glob("*.gguf"))
    assert parts[0].name.startswith("m-00001-of-0000")
    assert_same_weights(read_gguf(parts[0]), model)
    with pytest.raises(InputError, match=f"{parts[1].name} is one of .* parts; give the first, {parts[0].name}"):
        read_gguf(parts[1])
    parts[-1].rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=f"some are missing: {parts[-1].name}"):
        read_gguf(parts[0])
    parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(InputError, match=r"first\.gguf is one of . parts; its name must say so as -00001-of-0000"):
        read_gguf(tmp_path / "first.gguf")


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def slowing(rope: dict[str, Any], dims: int) -> np.ndarray:
    """By how much each pair of dimensions is slowed, by transformers' own frequencies."""
    config = transformers.LlamaConfig(head_dim=dims, max_position_embeddings=131072, rope_parameters=rope)
    plain = 1.0 / rope["rope_theta"] ** (torch.arange(0, dims, 2).float() / dims)
    return (plain / transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"](config)[0]).numpy()


def test_llama3_positions_come_from_the_table_of_frequencies(tmp_path: Path) -> None:
    rope = LLAMA3 | {"rope_theta": 500000.0, "original_max_position_embeddings": 8192}
    model = tiny_model("llama", head_dim=64, rope_parameters=rope, max_position_embeddings=131072)
    table = {"rope_freqs.weight": slowing(rope, 64)}
    assert len(set(table["rope_freqs.weight"])) > 3
    found = read_gguf(write_model(tmp_path / "m.gguf", model, extra=table))
    assert found.config_values["rope_scaling"] == LLAMA3 | {"original_max_position_embeddings": 8192}
    assert_same_config(found, model)
    assert_same_weights(found, model)
    other = rope | {"high_freq_factor": 8.0}
    write_model(tmp_path / "other.gguf", model, extra={"rope_freqs.weight": slowing(other, 64)})
    with pytest.raises(InputError, match=r"rope_freqs.weight scales positions in another way than Llama 3's"):
        read_gguf(tmp_path / "other.gguf")


@pytest.mark.parametrize(
    ("values", "rope"),
    [
        ({"type": "linear", "factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"factor": 2.5}, {"rope_type": "linear", "factor": 2.5}),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 512},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
        ),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 512, "yarn_attn_factor": 1.5}
            | {"yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "attention_factor": 1.5}
            | {"beta_fast": 16.0, "beta_slow": 2.0},
        ),
        ({"type": "none", "factor": 4.0}, None),
        ({"type": "linear", "factor": 0.0}, None),
    ],
)
def test_stretched_positions(tmp_path: Path, values: dict[str, Any], rope: dict[str, Any] | None) -> None:
    stretched = {f"*.rope.scaling.{key}": value for key, value in values.items()}
    found = read_gguf(write_model(tmp_path / "m.gguf", tiny_model("qwen2"), values=stretched))
    assert found.config_values["rope_scaling"] == rope
    if rope is not None:
        assert_same_config(found, tiny_model("qwen2", rope_parameters={**rope, "rope_theta": 10000.0}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"without": ["blk.1.attn_q.weight"]}, r"  blk\.1\.attn_q\.weight is missing"),
        ({"without": ["token_embd.weight"]}, r"  token_embd\.weight is missing"),
        ({"extra": {"blk.0.attn_sinks.weight": np.ones(4, np.float32)}}, r"  blk\.0\.attn_sinks\.weight is not known"),
        ({"extra": {"blk.2.attn_norm.weight": np.ones(64, np.float32)}}, r"  blk\.2\.attn_norm\.weight is not known"),
        ({"extra": {"blk.0.attn_q.bias": np.ones(64, np.float32)}}, r"  blk\.0\.attn_k\.bias is missing"),
        ({"extra": {"blk.0.attn_q.weight": np.ones((63, 64), np.float32)}}, r"\[63, 64\], which does not divide"),
        ({"extra": {"blk.0.attn_v.weight": np.ones((32, 64), np.float64)}}, "packed as F64, which Roslin does not"),
        ({"values": {"*.expert_count": 8}}, "mixture of experts"),
        ({"values": {"*.attention.value_length": 8}}, "its values are of another size than its keys"),
        ({"values": {"*.rope.scaling.type": "longrope", "*.rope.scaling.factor": 2.0}}, "scaled as 'longrope'"),
        ({"values": {"general.alignment": 0}}, "general.alignment is 0"),
    ],
)
def test_files_that_hold_another_model(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(InputError, match=said) as raised:
        read_gguf(write_model(path, tiny_model("llama"), **changes))
    assert str(path) in str(raised.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    model = tiny_model("llama", num_hidden_layers=3)
    with pytest.raises(InputError, match=r"and 7 more of the kind") as raised:
        read_gguf(write_model(tmp_path / "m.gguf", model, without=[n for n in converted(model) if n[:3] == "blk"]))
    assert len(str(raised.value).splitlines()) == 22


def test_unknown_architectures_packings_and_versions(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", tiny_model("llama"), Packing.Q8_0)
    whole = path.read_bytes()
    text = struct.pack("<Q", len(b"llama")) + b"llama"
    path.write_bytes(whole.replace(text, struct.pack("<Q", 5) + b"mamba", 1))
    with pytest.raises(
        InputError, match="architecture 'mamba' is not supported; Roslin runs llama, qwen2, qwen3, gptn"
    ):
        read_gguf(path)
    name = b"blk.0.ffn_up.weight"
    at = whole.index(name) + len(name) + 4 + 2 * 8
    path.write_bytes(whole[:at] + struct.pack("<I", 99) + whole[at + 4 :])
    with pytest.raises(InputError, match=r"ffn_up.weight is packed in a way that Roslin does not know \(number 99\)"):
        read_gguf(path)
    for version, said in [(1, "version 1 of the GGUF format; Roslin reads 2 and 3"), (3 << 24, "big-endian machine")]:
        path.write_bytes(whole[:4] + struct.pack("<I", version) + whole[8:])
        with pytest.raises(InputError, match=said):
            read_gguf(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    for content, said in [
        (b"", "is no GGUF file"),
        (b"GGUF", "is cut short"),
        (b"PK\x03\x04 something else", "it does not begin with the letters GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ]:
        path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_gguf(path)
    with pytest.raises(InputError, match=r"missing\.gguf cannot be read: No such file"):
        read_gguf(tmp_path / "missing.gguf")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_gguf(tmp_path)


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.gguf", tiny_model("llama"))
    found = read_gguf(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(InputError, match=rf"the file is cut short at {len(whole) - 200:,}"):
        read_gguf(path)
    path.write_bytes(whole[:20000])
    with pytest.raises(InputError, match="was cut short while it was read"):
        found.tensors["lm_head.weight"].read()


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("header") / "m.gguf"
    values = {"tokenizer.ggml.model": "gpt2", "general.name": "A name"}
    write_model(path, tiny_model("llama"), values=values)
    return path.read_bytes()[: open_gguf(path).entries[0].offset]


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_header_is_a_clear_error(tmp_path: Path, header: bytes, data: st.DataObject) -> None:
    """Whatever happened to it: cut off, a byte changed, or a number made huge."""
    path = tmp_path / "m.gguf"
    at = data.draw(st.integers(4, len(header) - 8))
    damage = data.draw(st.sampled_from([b"", b"\xff", b"\x00", b"\xff" * 8, struct.pack("<Q", 2**63)]))
    path.write_bytes(header[:at] + damage + (header[at + len(damage) :] if damage else b""))
    with pytest.raises(InputError, match=r"m\.gguf"):
        read_gguf(path)
