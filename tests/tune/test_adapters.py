"""Runs that train a LoRA: what learns, what stays, exact resume, and 4-bit weights against what they stand for."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributed.checkpoint.filesystem import FileSystemReader

from roslin.errors import InputError
from roslin.model import Decoder, PackedAttention, load_decoder, packed_positions, save_decoder
from roslin.model.adapted import merge, quantize_blocks
from roslin.model.adapter import save_adapter
from roslin.model.nf4_linear import Nf4Linear
from roslin.model.token_rows import RowsEmbedding
from roslin.tune import Callbacks, EvaluationLog, Interrupted, Recipe, UpdateLog, fit, prepare
from roslin.tune.flops import flops_a_token, flops_an_answer_token
from roslin.tune.packing import make_pack
from roslin.tune.step import accumulate, draw_seed, dropout
from run_recipes import changed
from tiny import tiny_gptj, tiny_llama

NUMBERS = ("update", "loss", "held_out", "learning_rate", "grad_norm", "records", "tokens", "kind", "by_category")


@pytest.fixture
def adapting(recipe: Recipe) -> Recipe:
    """The short run, with an adapter on all modules."""
    return changed(recipe, adapter={"rank": 4, "alpha": 8, "dropout": 0.1}, learning_rate=1e-2)


def curve(output: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: line.get(key) for key in NUMBERS} for line in lines]


def frozen(decoder: Decoder) -> dict[str, torch.Tensor]:
    tensors = {name: p for name, p in decoder.named_parameters() if not p.requires_grad} | dict(decoder.named_buffers())
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_learns_and_the_base_stays_bit_for_bit(adapting: Recipe, quantize: str, precision: str) -> None:
    chosen = changed(
        adapting, adapter={**adapting.model_dump()["adapter"], "quantize": quantize}, precision=precision, epochs=4
    )
    prepared = prepare(chosen)
    before = frozen(prepared.decoder)
    assert isinstance(prepared.decoder.blocks[1].down.base, Nf4Linear if quantize == "nf4" else nn.Linear)
    tuned = fit(chosen, prepared)
    assert tuned.held_out.loss < tuned.before.loss - 0.5
    embedding = prepared.decoder.embedding
    assert isinstance(embedding, RowsEmbedding)
    # The matrix as a whole is asked for, which puts the rows into their places.
    assert torch.equal(embedding.weight[8192:8195], embedding.rows_KD.to(embedding.weight.dtype))
    after = frozen(prepared.decoder)
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        kept = slice(8192) if name in ("embedding.base.weight", "head.base.weight") else slice(None)
        assert torch.equal(tensor[kept], after[name][kept]), name
    assert not torch.equal(before["embedding.base.weight"][8192:8195], after["embedding.base.weight"][8192:8195])


def test_it_begins_where_its_base_is(recipe: Recipe, adapting: Recipe) -> None:
    plain, adapted = prepare(recipe), prepare(adapting)
    ours, theirs = (prepared.held_out.measure(prepared.decoder).loss for prepared in (adapted, plain))
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_checkpoints_hold_the_adapter_alone(adapting: Recipe) -> None:
    fit(adapting, prepare(adapting))
    newest = max((adapting.output / "checkpoints").iterdir())
    held = FileSystemReader(newest).read_metadata().state_dict_metadata.values()
    learning = sum(p.numel() for p in prepare(adapting).decoder.parameters() if p.requires_grad)
    assert sum(tensor.size.numel() * tensor.properties.dtype.itemsize for tensor in held) == 4 * 3 * learning + 8
    # fp32 masters, both moments and the number of steps; each of the tensors lies in a small archive of its own.
    assert sum(path.stat().st_size for path in newest.iterdir()) < 4 * 3 * learning + 2_500 * len(held)


@pytest.mark.parametrize(
    ("precision", "quantize", "stop_after"), [("fp32", "none", 3), ("bf16", "none", 7), ("fp32", "nf4", 5)]
)
def test_interrupted_and_resumed_is_bitwise_the_same(
    adapting: Recipe, precision: str, quantize: str, stop_after: int
) -> None:
    """Dropout, too: its draws follow from the seed and the number of the update."""
    adapter = adapting.model_dump()["adapter"] | {"quantize": quantize}
    cut = changed(adapting, adapter=adapter, precision=precision, patience=50)
    whole = changed(cut, output=adapting.output.with_name("whole"))
    expected = fit(whole, prepare(whole))

    def interrupt(log: UpdateLog) -> None:
        if log.update == stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        fit(cut, prepare(cut), Callbacks(on_step=interrupt))
    torch.manual_seed(99)  # nothing may hang on torch's own stream
    resumed = fit(cut, prepare(cut))
    assert curve(cut.output) == curve(whole.output)
    for ours, theirs in zip(resumed.decoder.parameters(), expected.decoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)


RUN = """
import sys
from pathlib import Path
from roslin.tune import Recipe, fit, prepare, Callbacks
recipe = Recipe.load(Path(sys.argv[1]))
fit(recipe, prepare(recipe), Callbacks(on_step=lambda log: print(log.update, flush=True)))
"""


@pytest.mark.full
def test_killed_it_resumes_bitwise(adapting: Recipe, tmp_path: Path) -> None:
    files = {}
    for name in ("whole", "killed"):
        values = adapting.model_dump(mode="json") | {"output": str(tmp_path / name), "checkpoint_every": 2}
        files[name] = tmp_path / f"{name}.yaml"
        files[name].write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
    for updates in (3, 8):
        with subprocess.Popen(
            [sys.executable, "-c", RUN, str(files["killed"])], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            next(line for line in process.stdout if int(line) >= updates)
            process.kill()
    for path in files.values():
        subprocess.run([sys.executable, "-c", RUN, str(path)], check=True, capture_output=True, timeout=120)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")


def test_4_bit_weights_train_as_what_they_stand_for(adapting: Recipe, tmp_path: Path) -> None:
    """QLoRA is LoRA beside the dequantised matrices."""
    dense = load_decoder(Path(adapting.model))
    quantize_blocks(dense, torch.device("cpu"))
    merge(dense)
    (tmp_path / "dense").mkdir()
    save_decoder(dense, tmp_path / "dense")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "dense" / name).write_bytes((Path(adapting.model) / name).read_bytes())

    quantized = changed(adapting, adapter=adapting.model_dump()["adapter"] | {"quantize": "nf4"})
    stood_for = changed(adapting, model=str(tmp_path / "dense"), output=tmp_path / "stood-for")
    ours, theirs = fit(quantized, prepare(quantized)), fit(stood_for, prepare(stood_for))
    assert ours.held_out.loss == pytest.approx(theirs.held_out.loss, rel=1e-5)
    for a, b in zip(curve(quantized.output), curve(stood_for.output), strict=True):
        assert a["update"] == b["update"]
        assert (a["loss"] or 0) == pytest.approx(b["loss"] or 0, rel=1e-5)
    plain = fit(changed(adapting, output=tmp_path / "plain"), prepare(adapting))
    assert abs(plain.held_out.loss - theirs.held_out.loss) > 1e-4 * theirs.held_out.loss


@pytest.mark.parametrize("maker", [tiny_gptj, tiny_llama])
@pytest.mark.parametrize("tied", [False, True])
def test_gradients_are_those_of_plain_torch(
    adapting: Recipe, tmp_path: Path, base_folder: Path, maker: Any, tied: bool
) -> None:
    """Of a head with a bias and without, and of one that is tied to the embedding."""
    maker(tmp_path / "own", vocab_size=8192, tokenizer=base_folder, tie_word_embeddings=tied)
    prepared = prepare(changed(adapting, model=str(tmp_path / "own")))
    decoder, examples = prepared.decoder, prepared.examples[:6]
    learning = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in learning.items():
            source = torch.Generator().manual_seed(len(name))
            parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.05)
    total = torch.zeros(())
    for example in examples:
        ids, attend = torch.tensor(example.ids), PackedAttention([len(example.ids)])
        logits = decoder(ids, packed_positions([len(ids)]), attend)[example.answer_start - 1 : -1]
        total = total + F.cross_entropy(logits, ids[example.answer_start :], reduction="sum")
    total = total / sum(example.answer_count for example in examples)
    expected = dict(zip(learning, torch.autograd.grad(total, list(learning.values())), strict=True))
    loss = accumulate(decoder, [make_pack(examples[:2]), make_pack(examples[2:])])
    assert loss == pytest.approx(total.item(), rel=1e-5)
    for name, parameter in learning.items():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-3, atol=1e-6)
    assert all(parameter.grad is None for name, parameter in decoder.named_parameters() if name not in learning)


def test_patience_keeps_the_best_adapter(adapting: Recipe) -> None:
    greedy = changed(adapting, learning_rate=0.1, epochs=12, patience=2, evaluate_every=3, explosion=100)
    seen: list[EvaluationLog] = []
    tuned = fit(greedy, prepare(greedy), Callbacks(on_evaluate=lambda log, decoder: seen.append(log)))
    best = min(seen, key=lambda log: log.held_out.loss)
    assert tuned.stopped_early
    assert tuned.updates == best.update
    assert tuned.held_out.loss == pytest.approx(best.held_out.loss, rel=1e-6)


def test_dropout_follows_from_its_seed_and_leaves_torchs_stream_alone(adapting: Recipe) -> None:
    prepared = prepare(changed(adapting, adapter={"dropout": 0.5}))
    decoder, pack = prepared.decoder, make_pack(prepared.examples[:3])
    for block in decoder.blocks:
        block.qkv.B[0].data.normal_()

    def loss(seed: int) -> float:
        with dropout(decoder, seed):
            return accumulate(decoder, [pack])

    state = torch.get_rng_state()
    assert loss(1) == loss(1) != loss(2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not decoder.training
    assert accumulate(decoder, [pack]) == accumulate(decoder, [pack])
    assert len({draw_seed(seed, update) for seed in (42, 43, 2**80) for update in range(50)}) == 150


@pytest.mark.parametrize(
    ("change", "goes_on"), [({"rank": 8}, False), ({"dropout": 0.0}, False), ({"merge": False}, True)]
)
def test_a_checkpoint_goes_on_with_the_same_adapter_alone(
    adapting: Recipe, change: dict[str, Any], goes_on: bool
) -> None:
    fit(adapting, prepare(adapting))
    other = changed(adapting, adapter=adapting.model_dump()["adapter"] | change)
    if goes_on:
        fit(other, prepare(other))
    else:
        with pytest.raises(InputError, match="another recipe"):
            fit(other, prepare(other))


@pytest.mark.full
def test_settings_reach_the_run(adapting: Recipe) -> None:
    plain = fit(adapting, prepare(adapting)).held_out.loss
    adapter = adapting.model_dump()["adapter"]
    for number, values in enumerate(
        [
            {"new_keys_rate": 9},
            {"adapter": adapter | {"rslora": True}},
            {"adapter": adapter | {"modules": ["dense"]}},
            {"adapter": adapter | {"dropout": 0}},
            {"seed": 7},
        ]
    ):
        other = changed(adapting, output=adapting.output.with_name(f"other-{number}"), **values)
        assert fit(other, prepare(other)).held_out.loss != plain, values


def test_the_fast_rows_are_those_of_the_new_keys(adapting: Recipe) -> None:
    prepared = prepare(adapting)
    assert prepared.rows_of_new_keys == {"embedding.rows_KD": [0, 1, 2], "head.rows_KD": [0, 1, 2]}
    assert prepared.decoder.embedding.ids_K.tolist() == [8192, 8193, 8194]
    assert (prepared.base_rows, prepared.decoder.config.vocab_rows) == (8192, 8256)


def test_a_base_that_has_the_keys_gets_no_rows(adapting: Recipe, tmp_path: Path) -> None:
    prepared = prepare(adapting)
    merge(prepared.decoder)
    (tmp_path / "with-keys").mkdir()
    save_decoder(prepared.decoder, tmp_path / "with-keys")
    prepared.tokenizer.save(tmp_path / "with-keys")
    again = changed(adapting, model=str(tmp_path / "with-keys"))
    decoder = prepare(again).decoder
    assert isinstance(decoder.embedding, nn.Embedding) and isinstance(decoder.head, nn.Linear)
    assert fit(again, prepare(again)).updates > 0


def test_unknown_modules_are_told_before_records_are_read(adapting: Recipe) -> None:
    wrong = changed(adapting, adapter={"modules": ["q_proj", "dense"]}, records=["nowhere.jsonl"])
    with pytest.raises(InputError, match=r"modules name q_proj; those of gpt_neox are query_key_value, dense, "):
        prepare(wrong)


def test_an_adapter_is_no_base_of_another(adapting: Recipe, tmp_path: Path) -> None:
    prepared = prepare(adapting)
    assert prepared.lora is not None
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(
        prepared.decoder, folder, prepared.lora, base="base", revision=None, base_rows=8195, dtype=torch.float32
    )
    with pytest.raises(InputError, match="is an adapter itself"):
        prepare(changed(adapting, model=str(folder)))


def test_arithmetic_is_counted_by_what_learns(recipe: Recipe, adapting: Recipe) -> None:
    """Width 48, inner 96, three layers; per layer 48 · (144 + 48 + 96 + 96) numbers."""
    numbers = 3 * 48 * (144 + 48 + 96 + 96)
    plain = prepare(recipe).decoder
    assert flops_a_token(plain) == 6 * numbers
    assert flops_an_answer_token(plain) == 6 * 48 * 8256
    ranks = 3 * 4 * ((48 + 144) + (48 + 48) + (48 + 96) + (96 + 48))
    for quantize in ("none", "nf4"):
        adapter = adapting.model_dump()["adapter"] | {"quantize": quantize}
        adapted = prepare(changed(adapting, adapter=adapter)).decoder
        assert flops_a_token(adapted) == 4 * numbers + 6 * ranks
        assert flops_an_answer_token(adapted) == 4 * 48 * 8256
