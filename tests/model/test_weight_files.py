"""Weights in and out of transformers' folders, in every layout that it writes."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from roslin.errors import MachineError
from roslin.model import Decoder, load_config, load_decoder, padded_logits, save_decoder
from tiny import tiny_gpt_neox, tiny_gptj
from weight_folders import as_bin, rewrite

Maker = Callable[..., PreTrainedModel]
BOTH = pytest.mark.parametrize("maker", [tiny_gpt_neox, tiny_gptj])
IDS_BT = torch.arange(60).view(2, 30) % 128


@torch.no_grad()
def assert_same_model(decoder: Decoder, oracle: PreTrainedModel) -> None:
    ours = padded_logits(decoder.float(), IDS_BT, torch.ones_like(IDS_BT))
    theirs = oracle.float()(IDS_BT).logits
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


def assert_same_weights(one: Decoder, other: Decoder) -> None:
    assert one.config == other.config
    state, other_state = one.state_dict(), other.state_dict()
    assert state.keys() == other_state.keys()
    assert [name for name in state if not torch.equal(state[name], other_state[name])] == []


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_files_dtype_is_kept_and_another_can_be_asked_for(tmp_path: Path, maker: Maker, dtype: torch.dtype) -> None:
    oracle = maker(tmp_path, dtype=dtype)
    assert load_decoder(tmp_path).dtype == dtype
    assert_same_model(load_decoder(tmp_path), oracle)
    assert load_decoder(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16
    assert {p.dtype for p in load_decoder(tmp_path, dtype=torch.float32).parameters()} == {torch.float32}


def test_mixed_dtypes_load_as_the_widest(tmp_path: Path) -> None:
    oracle = tiny_gpt_neox(tmp_path, dtype=torch.float16)
    rewrite(tmp_path, lambda state: {n: t.float() if "layernorm" in n else t for n, t in state.items()})
    assert load_decoder(tmp_path).dtype == torch.float32
    assert_same_model(load_decoder(tmp_path), oracle)


@BOTH
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bin_files_load(tmp_path: Path, maker: Maker, shards: int, dtype: torch.dtype) -> None:
    oracle = maker(tmp_path, dtype=dtype)
    as_bin(tmp_path, shards)
    assert load_decoder(tmp_path).dtype == dtype
    assert_same_model(load_decoder(tmp_path), oracle)


def test_tensors_of_a_bin_may_share_numbers_and_be_transposed(tmp_path: Path) -> None:
    oracle = tiny_gptj(tmp_path)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    queries, keys = (f"transformer.h.0.attn.{part}_proj.weight" for part in "qk")
    together = torch.cat([state[queries], state[keys]])
    out = state["transformer.h.0.attn.out_proj.weight"].t().contiguous().t()
    as_bin(tmp_path, **{queries: together[:48], keys: together[48:], "transformer.h.0.attn.out_proj.weight": out})
    assert_same_model(load_decoder(tmp_path), oracle)


@BOTH
def test_sharded_safetensors_load(tmp_path: Path, maker: Maker) -> None:
    oracle = maker(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    oracle.save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_model(load_decoder(tmp_path), oracle)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_mask_buffers_of_old_files_are_ignored(tmp_path: Path, suffix: str) -> None:
    for maker, prefix in ((tiny_gpt_neox, "gpt_neox.layers.1.attention"), (tiny_gptj, "transformer.h.1.attn")):
        folder = tmp_path / maker.__name__
        oracle = maker(folder)
        buffers = {
            f"{prefix}.bias": torch.ones(1, 1, 512, 512, dtype=torch.bool).tril(),
            f"{prefix}.masked_bias": torch.tensor(-1e9),
        }
        if maker is tiny_gpt_neox:
            buffers[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(6)
        rewrite(folder, lambda state, buffers=buffers: {**state, **buffers})
        if suffix == "bin":
            as_bin(folder)
        assert_same_model(load_decoder(folder), oracle)


@BOTH
def test_names_without_the_bodys_prefix_and_the_heads_other_name_load(tmp_path: Path, maker: Maker) -> None:
    oracle = maker(tmp_path)

    def bare(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {
            re.sub(r"^(gpt_neox|transformer)\.", "", n).replace("embed_out", "lm_head"): t for n, t in state.items()
        }

    rewrite(tmp_path, bare)
    assert_same_model(load_decoder(tmp_path), oracle)


@BOTH
def test_a_tied_head_stays_one_parameter_and_may_lie_in_the_file_twice(tmp_path: Path, maker: Maker) -> None:
    oracle = maker(tmp_path, tie_word_embeddings=True)
    head, embedding = (
        ("embed_out.weight", "gpt_neox.embed_in.weight")
        if maker is tiny_gpt_neox
        else ("lm_head.weight", "transformer.wte.weight")
    )
    rewrite(tmp_path, lambda state: {**state, head: state[embedding].clone()})
    decoder = load_decoder(tmp_path)
    assert decoder.head.weight is decoder.embedding.weight
    assert_same_model(decoder, oracle)


def test_both_spellings_of_rotary_positions_mean_the_same(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    rest = {key: value for key, value in written.items() if not key.startswith(("rope", "rotary", "partial_rotary"))}
    old = {"rotary_pct": 0.5, "rotary_emb_base": 777}
    new = {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5, "rope_theta": 777.0}}
    for spelling in (old, new):
        (tmp_path / "config.json").write_text(json.dumps(rest | spelling))
        config = load_config(tmp_path)
        assert (config.rotary_dims, config.rotary_base) == (6, 777.0)


@BOTH
@pytest.mark.parametrize("limit", [5_000_000_000, 50_000])
@pytest.mark.parametrize("tied", [False, True])
def test_transformers_loads_what_is_saved(tmp_path: Path, maker: Maker, limit: int, tied: bool) -> None:
    oracle = maker(tmp_path / "from", tie_word_embeddings=tied)
    (tmp_path / "to").mkdir()
    save_decoder(load_decoder(tmp_path / "from"), tmp_path / "to", max_shard_bytes=limit, end_id=77)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "to", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert loaded.dtype == torch.float32
    with torch.no_grad():
        assert torch.equal(loaded(IDS_BT).logits, oracle(IDS_BT).logits)
    generation = GenerationConfig.from_pretrained(tmp_path / "to")
    assert (generation.eos_token_id, generation.bos_token_id, generation.pad_token_id) == (77, 0, 0)
    assert loaded.config.eos_token_id == 0


@pytest.mark.parametrize(
    "overrides",
    [
        {"use_parallel_residual": False, "attention_bias": False},
        {"hidden_act": "gelu_new", "rotary_pct": 1.0, "rotary_base": 99.5},
        {"hidden_size": 196, "rotary_pct": 30 / 49 + 1e-9, "layer_norm_eps": 1e-3},
    ],
)
def test_transformers_reads_every_choice_of_the_saved_configuration(
    tmp_path: Path, overrides: dict[str, object]
) -> None:
    oracle = tiny_gpt_neox(tmp_path / "from", **overrides)
    (tmp_path / "to").mkdir()
    save_decoder(load_decoder(tmp_path / "from"), tmp_path / "to")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "to")
    with torch.no_grad():
        assert torch.equal(loaded(IDS_BT).logits, oracle(IDS_BT).logits)


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saving_and_loading_changes_no_bit(tmp_path: Path, maker: Maker, dtype: torch.dtype) -> None:
    maker(tmp_path, dtype=dtype)
    decoder = load_decoder(tmp_path)
    for name, limit in (("single", 5_000_000_000), ("sharded", 30_000)):
        (tmp_path / name).mkdir()
        save_decoder(decoder, tmp_path / name, max_shard_bytes=limit)
        assert_same_weights(load_decoder(tmp_path / name), decoder)


@BOTH
def test_a_decoder_can_be_saved_over_the_files_that_are_its_memory(tmp_path: Path, maker: Maker) -> None:
    maker(tmp_path, vocab_size=4096)
    decoder = load_decoder(tmp_path)
    with torch.no_grad():
        decoder.embedding.weight[7] = 1
    assert_same_weights(load_decoder(tmp_path), load_decoder(tmp_path))
    assert not torch.equal(load_decoder(tmp_path).embedding.weight, decoder.embedding.weight), "the file is untouched"
    save_decoder(decoder, tmp_path)
    assert_same_weights(load_decoder(tmp_path), decoder)


@BOTH
def test_what_goes_to_another_device_is_placed_there(tmp_path: Path, maker: Maker) -> None:
    """torch's device without memory stands for a GPU: several parameters at once, none in a file's pages."""
    maker(tmp_path, dtype=torch.bfloat16)
    decoder = load_decoder(tmp_path, device="meta", dtype=torch.float32)
    assert {(parameter.device.type, parameter.dtype) for parameter in decoder.parameters()} == {("meta", torch.float32)}
    shapes = {name: parameter.shape for name, parameter in load_decoder(tmp_path).named_parameters()}
    assert {name: parameter.shape for name, parameter in decoder.named_parameters()} == shapes


def test_weights_outlive_their_files(tmp_path: Path) -> None:
    oracle = tiny_gpt_neox(tmp_path / "model", vocab_size=4096)
    decoder = load_decoder(tmp_path / "model")
    shutil.rmtree(tmp_path / "model")
    assert_same_model(decoder, oracle)


def test_shards_keep_to_the_limit_and_the_index_tells_the_truth(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path / "from")
    (tmp_path / "to").mkdir()
    decoder = load_decoder(tmp_path / "from")
    save_decoder(decoder, tmp_path / "to", max_shard_bytes=40_000, dtype=torch.bfloat16)
    index = json.loads((tmp_path / "to" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * decoder.config.parameter_count
    for path in (tmp_path / "to").glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            assert {index["weight_map"][name] for name in file.keys()} == {path.name}  # noqa: SIM118
            assert sum(file.get_tensor(name).nbytes for name in file.keys()) <= 40_000  # noqa: SIM118
    assert not (tmp_path / "to" / "model.safetensors").exists()


def test_saving_as_another_dtype(tmp_path: Path) -> None:
    tiny_gptj(tmp_path / "from")
    (tmp_path / "to").mkdir()
    save_decoder(load_decoder(tmp_path / "from"), tmp_path / "to", dtype=torch.bfloat16)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "to", dtype="auto").dtype == torch.bfloat16
    assert_same_weights(load_decoder(tmp_path / "to"), load_decoder(tmp_path / "from", dtype=torch.bfloat16))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    tiny_gptj(tmp_path / "from")
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "model.safetensors").symlink_to("/dev/full")
    with pytest.raises(MachineError, match="The disk is full"):
        save_decoder(load_decoder(tmp_path / "from"), tmp_path / "to")


def test_the_shipped_base_is_the_same_after_a_round_trip(tmp_path: Path, base_folder: Path) -> None:
    decoder = load_decoder(base_folder)
    assert decoder.dtype == torch.bfloat16
    save_decoder(decoder, tmp_path)
    assert_same_weights(load_decoder(tmp_path), decoder)


@BOTH
def test_the_parameter_count_is_what_is_there(tmp_path: Path, maker: Maker) -> None:
    for number, tied in enumerate([False, True]):
        maker(tmp_path / str(number), tie_word_embeddings=tied)
        decoder = load_decoder(tmp_path / str(number))
        assert decoder.config.parameter_count == sum(p.numel() for p in decoder.parameters())


PEAK = """
import ctypes, sys, torch
from pathlib import Path
from roslin.model import load_decoder

ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: huge pages round allocations up

def high_water():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

torch.set_num_threads(1)
load_decoder(Path(sys.argv[1]))  # what torch imports on the way is not what is measured
before = high_water()
decoder = load_decoder(Path(sys.argv[2]), dtype=torch.float32)
for parameter in decoder.parameters():
    parameter.sum()  # pages of a file count once they are touched
print((high_water() - before) / sum(parameter.nbytes for parameter in decoder.parameters()))
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("maker", "suffix", "stored"),
    [
        (tiny_gpt_neox, "safetensors", torch.float32),
        (tiny_gpt_neox, "bin", torch.bfloat16),
        (tiny_gptj, "safetensors", torch.bfloat16),
        (tiny_gptj, "bin", torch.float32),
    ],
)
def test_loading_takes_memory_for_one_copy(tmp_path: Path, maker: Maker, suffix: str, stored: torch.dtype) -> None:
    sizes = (
        {"hidden_size": 512, "num_hidden_layers": 20, "num_attention_heads": 8, "intermediate_size": 2048}
        if maker is tiny_gpt_neox
        else {"n_embd": 512, "n_layer": 20, "n_head": 8}
    )
    maker(tmp_path / "large", dtype=stored, vocab_size=4096, **sizes)
    maker(tmp_path / "tiny")
    if suffix == "bin":
        as_bin(tmp_path / "large")
        as_bin(tmp_path / "tiny")
    command = [sys.executable, "-c", PEAK, str(tmp_path / "tiny"), str(tmp_path / "large")]
    # Memory that malloc keeps for later is not the loader's: large blocks go back at once.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    shutil.rmtree(tmp_path / "large")
    assert 0.9 < float(run.stdout) < 1.15, run.stdout


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from roslin.errors import MachineError
from roslin.model import load_decoder

load_decoder(Path(sys.argv[1]))  # what torch takes on the way is not what is limited
used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, resource.RLIM_INFINITY))
try:
    load_decoder(Path(sys.argv[2]))
except MachineError as error:
    print(error)
"""


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_weights_that_memory_does_not_hold_are_told_with_their_size(tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path / "tiny")
    tiny_gpt_neox(tmp_path / "large", hidden_size=512, num_hidden_layers=1, vocab_size=2**16)
    command = [sys.executable, "-c", SHORT_OF_MEMORY, str(tmp_path / "tiny"), str(tmp_path / "large")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    shutil.rmtree(tmp_path / "large")
    assert "No memory on cpu for the model's weights, 0.25 GiB as float32." in run.stdout
