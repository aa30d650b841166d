import pytest
import torch

from roslin.engine import fuse
from roslin.engine.cpu.library import SWITCH
from roslin.engine.fused import _without_fp8
from roslin.engine.torch_packed import FEW, TorchPackedLinear, is_quantised, with_torch_kernels
from roslin.model.quantised import Form, quantise
from roslin.model.quantised_linear import QuantisedLinear
from tiny_decoders import plain_logits, quantised, tiny_decoder


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize(("outputs", "inputs"), [(64, 128), (37, 100)])
@pytest.mark.parametrize("rows", [1, 3, FEW])
def test_torchs_kernels_give_the_dequantised_product(form: Form, outputs: int, inputs: int, rows: int) -> None:
    torch.manual_seed(rows)
    bias = torch.nn.Parameter(torch.randn(outputs))
    linear = QuantisedLinear(quantise(torch.randn(outputs, inputs), form), bias)
    x = torch.randn(rows, inputs)
    with torch.inference_mode():
        found = TorchPackedLinear(linear)(x)
    expected = x.double() @ linear.quantised.dequantize().double().t() + bias.double()
    # Torch's own kernels round scales or sums to bfloat16 on some processors.
    assert float((found.double() - expected).abs().max() / expected.abs().max()) < 2e-2


def test_every_quantised_layer_is_taken() -> None:
    decoder = tiny_decoder("gpt_neox")
    assert not is_quantised(decoder)
    for block in decoder.blocks:
        block.up = QuantisedLinear(quantise(block.up.weight, "int8"), block.up.bias)
    assert is_quantised(decoder)
    assert all(isinstance(block.up, TorchPackedLinear) for block in with_torch_kernels(decoder).blocks)


def test_fp8_is_unpacked_where_there_are_no_kernels_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "0")
    plain = quantised(tiny_decoder("gptj"), "fp8")
    fused = fuse(quantised(tiny_decoder("gptj"), "fp8"))
    torch.testing.assert_close(plain_logits(fused, [7, 3]), plain_logits(plain, [7, 3]))


def test_a_gpu_without_fp8_is_told_of() -> None:
    """By way of a CPU, which has none either."""
    decoder = quantised(tiny_decoder("gptj"), "fp8")
    with pytest.warns(UserWarning, match=r"reads no fp8 .* unpacked to torch\.float32"):
        _without_fp8(decoder)
    assert not is_quantised(decoder)
    _without_fp8(quantised(tiny_decoder("gptj"), "int8"))
