"""Weights that are packed in their files, bitsandbytes' nf4 and GGUF, as a decoder of plain numbers; others refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from gguf_files import ARCHITECTURES, tiny_model, write_model
from roslin.errors import InputError
from roslin.model import Decoder, load_config, load_decoder, padded_logits
from roslin.model.bitsandbytes_layout import quantization_config, to_bitsandbytes
from roslin.model.nf4 import quantize_nf4
from tiny import tiny_gpt_neox, tiny_gptj, tiny_llama
from weight_folders import change_config, rewrite

IDS_BT = torch.arange(40).view(2, 20)
MAKERS = pytest.mark.parametrize("maker", [tiny_gpt_neox, tiny_gptj, tiny_llama])
Group = dict[str, Tensor]


def logits(decoder: Decoder) -> Tensor:
    with torch.no_grad():
        return padded_logits(decoder, IDS_BT, torch.ones_like(IDS_BT))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def pack(state: Group) -> Group:
    """Every matrix of a layer as nf4."""
    packed = {name: to_bitsandbytes(name, quantize_nf4(tensor)) for name, tensor in state.items() if is_packed(name)}
    return {
        **{name: tensor for name, tensor in state.items() if name not in packed},
        **{name: tensor for group in packed.values() for name, tensor in group.items()},
    }


def unpack(state: Group) -> Group:
    """The numbers that packing leaves."""
    return {n: quantize_nf4(tensor).dequantize() if is_packed(n) else tensor for n, tensor in state.items()}


def is_packed(name: str) -> bool:
    return (
        name.endswith(".weight") and (".layers." in name or ".h." in name) and "ln_" not in name and "norm" not in name
    )


@MAKERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_becomes_the_numbers_that_it_stands_for(
    tmp_path: Path, maker: Callable[..., object], dtype: torch.dtype
) -> None:
    for kind, change in (("packed", pack), ("plain", unpack)):
        maker(tmp_path / kind, dtype=dtype)
        rewrite(tmp_path / kind, change)
    change_config(tmp_path / "packed", quantization_config=quantization_config(dtype))
    packed, plain = load_decoder(tmp_path / "packed"), load_decoder(tmp_path / "plain")
    assert packed.dtype == dtype
    for (name, ours), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs), name


@pytest.mark.full
@MAKERS
@pytest.mark.parametrize("nested", [False, True])
def test_what_transformers_and_bitsandbytes_pack(tmp_path: Path, maker: Callable[..., object], nested: bool) -> None:
    pytest.importorskip("bitsandbytes")
    # Rows of whole blocks: bitsandbytes' own product on a CPU goes wrong with others.
    wide = {"n_embd": 64} if maker is tiny_gptj else {"hidden_size": 64, "intermediate_size": 128}
    maker(tmp_path / "plain", **wide, **({"head_dim": 16} if maker is tiny_llama else {}))
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=nested)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=how, dtype=torch.float32)
    model.save_pretrained(tmp_path / "packed")
    # In training: for inference bitsandbytes rounds everything to bf16 on CPUs that have instructions for it.
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.float32).train()
    with torch.no_grad():
        assert relative(logits(load_decoder(tmp_path / "packed").float()), theirs(IDS_BT).logits) < 1e-5


def test_pieces_that_are_missing_or_amiss_are_named(tmp_path: Path) -> None:
    tiny_llama(tmp_path)

    def spoil(state: Group) -> Group:
        packed = pack(state)
        del packed["model.layers.1.mlp.up_proj.weight.absmax"]
        packed["model.layers.2.mlp.up_proj.weight.absmax"] = torch.ones(3)
        return packed

    rewrite(tmp_path, spoil)
    change_config(tmp_path, quantization_config=quantization_config(torch.float32))
    with pytest.raises(InputError) as caught:
        load_decoder(tmp_path)
    text = str(caught.value)
    assert "model.safetensors: model.layers.1.mlp.up_proj.weight.absmax is missing" in text
    assert "model.safetensors: model.layers.2.mlp.up_proj.weight.absmax has 3 numbers" in text
    assert len(text.splitlines()) == 3


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes' 8 bits"),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes' fp4"),
        ("int8", "'int8'"),
    ],
)
def test_other_ways_of_packing_are_refused(tmp_path: Path, how: object, named: str) -> None:
    tiny_llama(tmp_path)
    change_config(tmp_path, quantization_config=how)
    for load in (load_config, load_decoder):
        with pytest.raises(InputError, match=rf"config\.json: the weights are quantised by {named}, which Roslin"):
            load(tmp_path)


@pytest.mark.parametrize("family", list(ARCHITECTURES))
def test_a_gguf_file_is_a_decoder(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    file = write_model(tmp_path / "m.gguf", model)
    assert load_config(file) == load_decoder(file).config
    with torch.no_grad():
        assert relative(logits(load_decoder(file, dtype=torch.float32)), model.float()(IDS_BT).logits) < 1e-5
    assert load_decoder(file, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_packed_file_of_several_kinds_of_numbers(tmp_path: Path) -> None:
    """Norms are in fp32 in files by llama.cpp, so that is what is loaded unless another dtype is asked for."""
    tiny_llama(tmp_path, dtype=torch.bfloat16)
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    rewrite(tmp_path, lambda state: {n: t.float() if "norm" in n else t for n, t in state.items()})
    decoder = load_decoder(tmp_path)
    assert decoder.dtype == torch.float32
    assert torch.equal(decoder.embedding.weight, state["model.embed_tokens.weight"].float())
