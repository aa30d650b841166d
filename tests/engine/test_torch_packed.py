import pytest
import torch

from roslin.engine.torch_packed import FEW, TorchPackedLinear, is_quantised, with_torch_kernels
from roslin.model.quantised import Form, quantise
from roslin.model.quantised_linear import QuantisedLinear
from tiny_decoders import tiny_decoder


@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
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
