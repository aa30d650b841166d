import json
from functools import partial
from pathlib import Path

import pytest
import torch

from roslin.errors import InputError
from roslin.model import find_model, load_decoder, load_for_answering, save_decoder
from roslin.model.quantised import GROUPS, Form, quantise, quantise_4, quantise_8, quantise_fp8, round_to_4, stacked
from roslin.model.quantised_linear import QuantisedEmbedding, QuantisedLinear
from roslin.model.save_quantised import save_quantised
from roslin.model.stored_quantised import tensors_of
from roslin.tokens import Tokenizer
from tiny_decoders import FAMILIES, plain_logits, tiny_decoder

IDS = [7, 3, 11, 9] * 8


def relative_error(weight: torch.Tensor, found: torch.Tensor) -> float:
    return float((found - weight).norm() / weight.norm())


def test_8_bits_are_off_by_at_most_half_a_step_of_each_row() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 130) * torch.logspace(-6, 3, 40)[:, None]
    weight[5] = 0
    found = quantise_8(weight).dequantize()
    step = weight.abs().amax(1, keepdim=True) / 127
    assert ((found - weight).abs() <= step * 0.5001).all()
    assert torch.allclose(found.abs().amax(1), weight.abs().amax(1))


def test_fp8_keeps_three_bits_behind_the_first_and_the_largest_of_a_row() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 130) * torch.logspace(-6, 3, 40)[:, None]
    weight[5] = 0
    found = quantise_fp8(weight).dequantize()
    largest = weight.abs().amax(1, keepdim=True)
    least = largest / 448 * 2**-6  # below it steps are all of one size, an eighth of this
    assert ((found - weight).abs() <= torch.maximum(weight.abs(), least) * 2**-4 * 1.001).all()
    assert torch.allclose(found.abs().amax(1, keepdim=True), largest)


def test_what_is_cut_out_of_a_quantised_matrix_is_of_its_numbers() -> None:
    torch.manual_seed(1)
    weight = torch.randn(24, 128)
    forms: list[Form] = ["int8", "fp8", "int4"]
    for form in forms:
        whole = quantise(weight, form)
        numbers, some = whole.dequantize(), torch.tensor([3, 20, 3])
        assert whole.form == form and whole.bits == (4 if form == "int4" else 8)
        assert torch.equal(whole.rows(some).dequantize(), numbers[some])
        assert torch.equal(whole.columns(64, 128).dequantize(), numbers[:, 64:])
        longer = stacked([whole, whole.rows(slice(0, 2))]).with_zeros(3)
        assert torch.equal(longer.dequantize(), torch.cat([numbers, numbers[:2], torch.zeros(3, 128)]))
        assert longer.form == form


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("columns", [1, 33, 128, 517])
def test_4_bits_solved_for_are_nearer_than_rounded(group: int, columns: int) -> None:
    torch.manual_seed(columns)
    weight = torch.randn(24, columns) / 50
    weight[3] = 0.25
    solved, rounded = quantise_4(weight, group), round_to_4(weight, group)
    assert solved.shape == rounded.shape == (24, columns)
    assert solved.codes.shape == (24, -(-columns // 2))
    assert relative_error(weight, solved.dequantize()) <= relative_error(weight, rounded.dequantize())
    if columns > 1:
        assert relative_error(weight, rounded.dequantize()) < 0.15
    assert torch.allclose(solved.dequantize()[3], weight[3], atol=1e-3)
    assert torch.equal(solved.rows(slice(2, 5)).dequantize(), solved.dequantize()[2:5])


def test_on_the_shipped_base_4_bits_solved_for_beat_rounding_in_weights_and_logits() -> None:
    base = find_model("base")
    decoder = load_decoder(base, dtype=torch.float32)
    licence = base.joinpath("LICENSE.md").read_text() + base.joinpath("NOTICE.md").read_text()
    ids = Tokenizer.load(base).marked_backend().encode(licence).ids
    exact = plain_logits(decoder, ids).log_softmax(-1)
    weights = [(block, name) for block in decoder.blocks for name in ("qkv", "out", "up", "down")]
    kept = {(block, name): getattr(block, name) for block, name in weights}
    errors: dict[str, tuple[float, float]] = {}
    for method in (round_to_4, quantise_4):
        squares = 0.0
        for (block, name), linear in kept.items():
            quantised = QuantisedLinear(method(linear.weight), linear.bias)
            squares += relative_error(linear.weight, quantised.quantised.dequantize()) ** 2
            setattr(block, name, quantised)
        found = plain_logits(decoder, ids).log_softmax(-1)
        divergence = float((exact.exp() * (exact - found)).sum(-1).mean())
        errors[method.__name__] = (squares, divergence)
    assert errors["quantise_4"][0] < 0.88 * errors["round_to_4"][0]
    assert errors["quantise_4"][1] < errors["round_to_4"][1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_a_quantised_model_is_the_same_loaded_as_it_is_and_unpacked(family: str, form: Form, tmp_path: Path) -> None:
    source = tiny_decoder(family)
    save_quantised(source, tmp_path, form, group=32)
    kept, plain = load_for_answering(tmp_path, dtype=torch.float32), load_decoder(tmp_path)
    assert isinstance(kept.blocks[0].qkv, QuantisedLinear)
    assert isinstance(kept.embedding, QuantisedEmbedding)
    assert isinstance(plain.blocks[0].qkv, torch.nn.Linear)
    assert torch.allclose(plain_logits(kept, IDS), plain_logits(plain, IDS), atol=1e-4)
    for ours, theirs in zip(plain.blocks, source.blocks, strict=True):
        for name in ("qkv", "out", "up", "down"):
            weight = getattr(theirs, name).weight
            expected = quantise(weight, form, 32).dequantize()
            assert torch.equal(getattr(ours, name).weight, expected)
    assert torch.equal(plain.head.weight, quantise(source.head.weight, "fp8" if form == "fp8" else "int8").dequantize())


def test_the_files_keep_to_their_size(tmp_path: Path) -> None:
    decoder = load_decoder(find_model("base"))
    sizes, forms = {}, ("int8", "fp8", "int4")
    for form in forms:
        folder = tmp_path / form
        folder.mkdir()
        save_quantised(decoder, folder, form, max_shard_bytes=4_000_000)
        sizes[form] = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        assert len(list(folder.glob("*.safetensors"))) > 2
        load_for_answering(folder, dtype=torch.float32)
    layers = sum(p.numel() for p in decoder.blocks.parameters())
    rest = decoder.embedding.weight.numel() + decoder.head.weight.numel()
    assert sizes["int8"] < 1.04 * (layers + rest)
    assert sizes["fp8"] == pytest.approx(sizes["int8"], rel=1e-4)  # but for the names of dtypes
    assert sizes["int4"] < 1.04 * (layers * 4.5 / 8 + rest)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_matrix_with_numbers_that_are_none_is_named(bad: float, tmp_path: Path) -> None:
    decoder = tiny_decoder("gpt_neox")
    with torch.no_grad():
        decoder.blocks[1].up.weight[0, 0] = bad
    with pytest.raises(InputError, match=r"layers\.1\.mlp\.dense_h_to_4h\.weight: .*infinite or none"):
        save_quantised(decoder, tmp_path, "int8")


def test_pieces_that_do_not_fit_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_quantised(tiny_decoder("gpt_neox"), tmp_path, "int8")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    tensors["gpt_neox.layers.0.mlp.dense_h_to_4h.weight"] = torch.zeros(64, 32)
    short = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight.scale"
    tensors[short] = tensors[short][:-1].clone()
    save_file(tensors, file)
    with pytest.raises(InputError) as caught:
        load_for_answering(tmp_path, dtype=torch.float32)
    assert "gpt_neox.layers.0.mlp.dense_h_to_4h.weight is neither in 8 bits" in str(caught.value)
    assert "gpt_neox.layers.1.mlp.dense_h_to_4h.weight of shape" in str(caught.value)


def test_fp8_without_its_scales_is_no_weight(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_quantised(tiny_decoder("gpt_neox"), tmp_path, "fp8")
    file, name = tmp_path / "model.safetensors", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    save_file({other: tensor for other, tensor in load_file(file).items() if other != name + ".scale"}, file)
    for load in (load_decoder, partial(load_for_answering, dtype=torch.float32)):
        with pytest.raises(InputError, match=rf"{name} holds fp8 without {name}\.scale"):
            load(tmp_path)


@pytest.mark.parametrize("other", [None, "int8", "int4"])
def test_layers_in_several_forms_are_refused(other: Form | None, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    decoder = tiny_decoder("gpt_neox")
    save_quantised(decoder, tmp_path, "fp8")
    file, name = tmp_path / "model.safetensors", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    tensors = {its: tensor for its, tensor in load_file(file).items() if not its.startswith(name)}
    weight = decoder.blocks[1].up.weight.detach()
    made = [weight] if other is None else tensors_of(quantise(weight, other))
    save_file(tensors | dict(zip([name, name + ".scale", name + ".shift"], made, strict=False)), file)
    with pytest.raises(InputError, match=r"is in fp8; .*h_to_4h\.weight is in .*: all layers must be in one form"):
        load_for_answering(tmp_path, dtype=torch.float32)


def test_a_folder_of_an_earlier_version_loads(tmp_path: Path) -> None:
    save_quantised(tiny_decoder("gpt_neox"), tmp_path, "int4", group=32)
    values = json.loads((tmp_path / "config.json").read_text())
    values["quantization_config"] = {"quant_method": "roslin", "bits": 4, "group": 32, "embedding_and_head_bits": 8}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert isinstance(load_for_answering(tmp_path, dtype=torch.float32).blocks[0].qkv, QuantisedLinear)


def test_a_plain_model_loads_for_answering_as_ever(tmp_path: Path) -> None:
    save_decoder(tiny_decoder("gptj"), tmp_path)
    assert isinstance(load_for_answering(tmp_path, dtype=torch.float32).head, torch.nn.Linear)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
