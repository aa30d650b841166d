"""Adapters on disk: PEFT loads Roslin's, Roslin loads PEFT's, and both give the same logits."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from roslin.errors import InputError
from roslin.model import Decoder, fit_vocabulary, load_decoder, padded_logits
from roslin.model.adapted import Lora, adapt, merge
from roslin.model.adapter import (
    base_of,
    is_adapter,
    load_adapted,
    load_adapted_config,
    save_adapter,
    text_source_of,
)
from roslin.model.lora import LoraLinear
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama

peft = pytest.importorskip("peft")
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
]

Maker = Callable[..., PreTrainedModel]
TIED = {"tie_word_embeddings": True}
MODELS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "gpt_neox": (tiny_gpt_neox, {}),
    "gptj": (tiny_gptj, {}),
    "llama": (tiny_llama, {}),
    "qwen2": (tiny_llama, {"kind": "qwen2"}),
    "qwen3": (tiny_llama, {"kind": "qwen3"}),
    "tied_neox": (tiny_gpt_neox, TIED),
    "tied_gptj": (tiny_gptj, TIED),
    "tied_llama": (tiny_llama, TIED),
}
ALL = pytest.mark.parametrize("model", MODELS)
FEW = pytest.mark.parametrize("model", ["gpt_neox", "gptj", "llama", "qwen3"])
EMBEDDINGS = {"gpt_neox": "embed_in", "gptj": "wte", "tied_neox": "embed_in", "tied_gptj": "wte"}
SOME = {"gpt_neox": ["query_key_value", "dense_4h_to_h"], "gptj": ["q_proj", "v_proj", "fc_out"]}
ROWS = 128
LORA = Lora(rank=4, alpha=6, dropout=0.1, rslora=True)


@pytest.fixture
def base(model: str, tmp_path: Path) -> Path:
    maker, changes = MODELS[model]
    maker(tmp_path / "base", vocab_size=ROWS, **changes)
    return tmp_path / "base"


def shuffle(learning: Sequence[tuple[str, torch.nn.Parameter]]) -> None:
    """Numbers for what starts at zero, and others for what starts from the base."""
    source = torch.Generator().manual_seed(11)
    for _, parameter in learning:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=source)


def learning(module: torch.nn.Module) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def our_adapter(base: Path, folder: Path, tokens: int, new_ids: list[int], lora: Lora = LORA) -> Decoder:
    """A decoder with a lively adapter in it, saved."""
    decoder = load_decoder(base)
    fit_vocabulary(decoder, tokens, new_ids, "mean")
    adapt(decoder, lora, new_ids, torch.Generator().manual_seed(0))
    shuffle(learning(decoder))
    folder.mkdir()
    save_adapter(decoder, folder, lora, base=str(base), revision=None, base_rows=max(ROWS, tokens), dtype=torch.float32)
    return decoder


def in_peft(base: Path, folder: Path, rows: int) -> PreTrainedModel:
    oracle = AutoModelForCausalLM.from_pretrained(base)
    if rows > ROWS:
        oracle.resize_token_embeddings(rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        return peft.PeftModel.from_pretrained(oracle, folder)


def ids_of(rows: int) -> torch.Tensor:
    return torch.randint(rows, (2, 40), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def assert_same_logits(decoder: Decoder, oracle: PreTrainedModel, rows: int) -> None:
    ids_BT = ids_of(rows)
    ours = padded_logits(decoder, ids_BT, torch.ones_like(ids_BT))[..., :rows]
    theirs = oracle.eval()(ids_BT).logits
    assert ours.shape == theirs.shape
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-5


def test_the_adapters_here_are_lively(tmp_path: Path) -> None:
    tiny_llama(tmp_path / "base")
    decoder, plain = our_adapter(tmp_path / "base", tmp_path / "adapter", ROWS, [126]), load_decoder(tmp_path / "base")
    ids_BT = ids_of(ROWS)
    ours, theirs = (padded_logits(each, ids_BT, torch.ones_like(ids_BT)) for each in (decoder, plain))
    assert (ours - theirs).abs().max() > 0.5


@ALL
@pytest.mark.parametrize(
    ("tokens", "new_ids"),
    [(ROWS, []), (120, [117, 118, 119]), (ROWS + 3, [128, 129, 130])],
    ids=["", "padded", "grown"],
)
def test_peft_loads_ours(base: Path, tmp_path: Path, tokens: int, new_ids: list[int]) -> None:
    rows = max(ROWS, tokens)
    decoder = our_adapter(base, tmp_path / "adapter", tokens, new_ids)
    assert_same_logits(decoder, in_peft(base, tmp_path / "adapter", rows), rows)
    for merged in (False, True):
        again = load_adapted(tmp_path / "adapter", merged=merged)
        assert isinstance(again.blocks[0].qkv, LoraLinear) != merged
        assert again.config.parameter_count == load_adapted_config(tmp_path / "adapter").parameter_count
        ids_BT = ids_of(rows)
        ours, theirs = (padded_logits(each, ids_BT, torch.ones_like(ids_BT)) for each in (again, decoder))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    merge(decoder)
    assert_same_logits(decoder, in_peft(base, tmp_path / "adapter", rows).merge_and_unload(), rows)


@FEW
def test_peft_loads_some_modules_of_ours(base: Path, tmp_path: Path, model: str) -> None:
    lora = Lora(rank=3, alpha=1.5, modules=SOME.get(model, ["k_proj", "up_proj"]))
    decoder = our_adapter(base, tmp_path / "adapter", ROWS, [127], lora)
    assert_same_logits(decoder, in_peft(base, tmp_path / "adapter", ROWS), ROWS)


def their_adapter(base: Path, folder: Path, *, rows: int = ROWS, **settings: Any) -> PreTrainedModel:
    """A model with a lively adapter of PEFT's making in it, saved."""
    oracle = AutoModelForCausalLM.from_pretrained(base)
    if rows > ROWS:
        oracle.resize_token_embeddings(rows)
    model = peft.get_peft_model(
        oracle, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM"} | settings)
    )
    shuffle(learning(model))
    model.save_pretrained(folder)
    return model


def assert_ours_is_theirs(base: Path, folder: Path, *, rows: int = ROWS, **settings: Any) -> None:
    oracle = their_adapter(base, folder, rows=rows, **settings)
    for merged in (False, True):
        assert_same_logits(load_adapted(folder, merged=merged), oracle, rows)


@ALL
def test_ours_loads_all_linear_modules_of_pefts(base: Path, tmp_path: Path) -> None:
    assert_ours_is_theirs(base, tmp_path / "adapter", target_modules="all-linear", use_rslora=True)


@FEW
def test_ours_loads_chosen_modules_of_pefts(base: Path, tmp_path: Path, model: str) -> None:
    chosen = SOME.get(model, ["q_proj", "o_proj", "gate_proj"])
    assert_ours_is_theirs(base, tmp_path / "list", target_modules=chosen)
    assert_ours_is_theirs(base, tmp_path / "pattern", target_modules=rf".*\.[12]\..*({'|'.join(chosen)})")
    ranks = {"rank_pattern": {chosen[0]: 2, rf"1\..*{chosen[1]}": 7}, "alpha_pattern": {chosen[1]: 1.5}}
    for rslora in (False, True):
        assert_ours_is_theirs(
            base, tmp_path / f"ranks-{rslora}", target_modules=chosen, use_rslora=rslora, **ranks, lora_dropout=0.3
        )


@pytest.mark.parametrize("model", [name for name in MODELS if name != "tied_gptj"])
@pytest.mark.parametrize("rows", [ROWS, ROWS + 3])
def test_ours_loads_rows_that_peft_trained(base: Path, tmp_path: Path, model: str, rows: int) -> None:
    """Where the vocabulary was resized, PEFT stores embedding and head whole as well.

    A head with a bias forgets it in PEFT 0.21 as soon as it has rows of its own, so that GPT-J is tested without.
    """
    ids = [5, rows - 1, rows - 3]
    settings: dict[str, Any] = {"rows": rows, "target_modules": "all-linear"}
    assert_ours_is_theirs(base, tmp_path / "list", **settings, trainable_token_indices=ids)
    if model != "gptj":
        named = {EMBEDDINGS.get(model, "embed_tokens"): ids, "lm_head": ids if model.startswith("tied") else [7]}
        assert_ours_is_theirs(base, tmp_path / "named", **settings, trainable_token_indices=named)


@ALL
@pytest.mark.parametrize("rows", [ROWS, ROWS + 3])
def test_ours_loads_embeddings_that_peft_trained_whole(base: Path, tmp_path: Path, model: str, rows: int) -> None:
    embedding = EMBEDDINGS.get(model, "embed_tokens")
    for saved in ([embedding, "lm_head"], [embedding], ["lm_head"]):
        name = "-".join(saved)
        assert_ours_is_theirs(base, tmp_path / name, rows=rows, target_modules="all-linear", modules_to_save=saved)


@FEW
def test_torchs_own_file_is_read_too(base: Path, tmp_path: Path) -> None:
    oracle = their_adapter(base, tmp_path / "adapter", target_modules="all-linear")
    oracle.save_pretrained(tmp_path / "bin", safe_serialization=False)
    assert (tmp_path / "bin" / "adapter_model.bin").is_file()
    assert_same_logits(load_adapted(tmp_path / "bin"), oracle, ROWS)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """An adapter of PEFT's for a small Llama."""
    tiny_llama(tmp_path / "base")
    their_adapter(tmp_path / "base", tmp_path / "adapter", target_modules=["q_proj"], trainable_token_indices=[3])
    return tmp_path / "adapter"


def change_settings(adapter: Path, **values: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, "use_dora: is True"),
        ({"bias": "all"}, "bias: is 'all'"),
        ({"peft_type": "IA3"}, "peft_type: is 'IA3'; Roslin runs LORA"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights: is 'pissa_niter_4', which changes the base"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"some_new_kind": {"x": 1}}, "some_new_kind"),
        ({"r": 0}, "r: is 0"),
        ({"lora_alpha": "much"}, "lora_alpha: is 'much'"),
        ({"rank_pattern": {"q_proj": "two"}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj(": 2}}, "no regular expression"),
        ({"trainable_token_indices": [-1]}, "trainable_token_indices"),
        ({"trainable_token_indices": {"embed_tokens": [1, 1]}}, "trainable_token_indices"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path: is 5"),
    ],
)
def test_kinds_that_are_not_run_are_told(llama: Path, values: dict[str, object], message: str) -> None:
    change_settings(llama, **values)
    with pytest.raises(InputError, match=rf"(?s)adapter_config\.json cannot be used.*{message}"):
        load_adapted(llama)


def test_all_faults_come_together(llama: Path) -> None:
    change_settings(llama, use_dora=True, bias="all", r=-1)
    with pytest.raises(InputError) as raised:
        load_adapted(llama)
    assert all(key in str(raised.value) for key in ("use_dora", "bias", "r: is -1"))


def without(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[next(key for key in tensors if name in key)]

    return change


def narrowed(tensors: dict[str, torch.Tensor]) -> None:
    name = next(key for key in tensors if "lora_B" in key)
    tensors[name] = tensors[name][:-1]


def with_norm(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.model.norm.weight"] = torch.ones(48)


def on_head(tensors: dict[str, torch.Tensor]) -> None:
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.ones(4, 48)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("lora_A"), r"layers\.0\.self_attn\.q_proj has no A"),
        (without("trainable_tokens"), "embedding has no rows"),
        (narrowed, r"lora_B\.weight has the shape \[47, 4\]; base and adapter_config\.json make it \[48, 4\]"),
        (with_norm, r"model\.norm\.weight is not known"),
        (on_head, "lm_head is no module that Roslin adds LoRA to"),
    ],
)
def test_tensors_that_do_not_fit_are_told(llama: Path, change: Callable[..., None], message: str) -> None:
    path = llama / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError, match=rf"(?s)does not fit its base:.*{message}"):
        load_adapted(llama)


def test_the_base_of_another_shape_is_told(llama: Path, tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path / "other")
    with pytest.raises(InputError, match="q_proj is no module"):
        load_adapted(llama, base=str(tmp_path / "other"))
    tiny_llama(tmp_path / "wide", hidden_size=72, num_attention_heads=3, num_key_value_heads=1, head_dim=24)
    with pytest.raises(InputError, match=r"base and adapter_config\.json make it"):
        load_adapted(llama, base=str(tmp_path / "wide"))


def test_the_base_is_found(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_of(llama) == tmp_path / "base"
    change_settings(llama, base_model_name_or_path="../base")
    assert base_of(llama).resolve() == tmp_path / "base"
    monkeypatch.chdir(tmp_path)
    change_settings(llama, base_model_name_or_path="base")
    assert base_of(llama).name == "base"  # the one that ships
    assert base_of(llama, "./base").resolve() == tmp_path / "base"
    change_settings(llama, base_model_name_or_path="./nowhere")
    with pytest.raises(InputError, match=r"(?s)adapter needs its base\. No model './nowhere'"):
        load_adapted(llama)
    change_settings(llama, base_model_name_or_path=None)
    with pytest.raises(InputError, match="names no base_model_name_or_path"):
        load_adapted(llama)
    with pytest.raises(InputError, match="is an adapter itself"):
        load_adapted(llama, base=str(llama))


def test_the_tokenizer_is_its_own_or_the_bases(llama: Path, tmp_path: Path) -> None:
    assert text_source_of(llama) == tmp_path / "base"
    (llama / "tokenizer.json").touch()
    assert text_source_of(llama) == llama


def test_the_name_that_transformers_4_has_for_a_head_is_read_too(tmp_path: Path) -> None:
    """GPT-NeoX's is called there as in its files."""
    tiny_gpt_neox(tmp_path / "base")
    ids = {"embed_in": [3, 4], "lm_head": [4]}
    adapter = tmp_path / "adapter"
    oracle = their_adapter(tmp_path / "base", adapter, target_modules="all-linear", trainable_token_indices=ids)
    tensors = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("lm_head", "embed_out"): tensor for name, tensor in tensors.items()}
    save_file(renamed, adapter / "adapter_model.safetensors", {"format": "pt"})
    change_settings(adapter, trainable_token_indices={"embed_in": [3, 4], "embed_out": [4]})
    assert_same_logits(load_adapted(adapter), oracle, ROWS)


def test_what_is_an_adapter(llama: Path, tmp_path: Path) -> None:
    assert is_adapter(llama)
    assert not is_adapter(tmp_path / "base")
    (llama / "config.json").touch()
    assert not is_adapter(llama)


def test_an_adapter_without_weights_or_settings_is_told(llama: Path) -> None:
    (llama / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="holds no weights of an adapter"):
        load_adapted(llama)
    for broken in ("{", "[]"):
        (llama / "adapter_config.json").write_text(broken, encoding="utf-8")
        with pytest.raises(InputError, match="JSON"):
            load_adapted(llama)


def test_a_narrower_dtype(llama: Path, tmp_path: Path) -> None:
    """Merging in bf16 rounds the sum once more than the base was rounded."""
    exact = load_adapted(llama).blocks[0].qkv.weight
    assert torch.equal(load_decoder(tmp_path / "base").blocks[0].qkv.weight[48:], exact[48:])  # q_proj alone
    half = load_adapted(llama, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.blocks[0].qkv.weight.float(), exact, rtol=2**-7, atol=1e-3)
