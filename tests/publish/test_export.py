"""Export to transformers' folder and of adapters: transformers and PEFT are the oracle. What is broken is not kept."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from exported import MODELS, ROWS, TOKENS, all_ids, keyed_tokenizer, made
from made_evidence import limits_report, tuning
from roslin.errors import InputError, MachineError, UsageError
from roslin.model import Decoder, load_decoder
from roslin.model.adapted import Lora, adapt
from roslin.model.adapter import save_adapter
from roslin.model.fingerprint import fingerprint
from roslin.publish.evidence import (
    AdapterEvidence,
    Evidence,
    LimitsEvidence,
    Stated,
    read_evidence,
    write_evidence,
)
from roslin.publish.export import Format, export, format_of
from roslin.publish.export_gguf import GgufExport
from roslin.publish.export_hf import HfExport
from roslin.publish.export_source import Source
from roslin.publish.parity import Parity, ParityError, Tolerance, compare_logits
from roslin.tokens import Tokenizer
from roslin.workflows.card import CardOptions, make_card
from weight_folders import rewrite

SMALL_SHARDS = 400_000


@pytest.fixture(scope="module")
def tokenizer(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keyed_tokenizer(base_folder, tmp_path_factory.mktemp("keyed"))


@torch.inference_mode()
def their_logits(folder: Path, ids_BT: torch.Tensor) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    logits_BTV: torch.Tensor = model(ids_BT).logits
    return logits_BTV


@pytest.mark.parametrize("family", MODELS)
def test_transformers_loads_shards_with_the_same_logits(family: str, tokenizer: Path, tmp_path: Path) -> None:
    source = made(family, tmp_path / "source", tokenizer)
    done = export(str(source), tmp_path / "out", HfExport(shard_bytes=SMALL_SHARDS))
    assert (done.parity.largest_error, done.parity.weight_error) == (0.0, 0.0)
    shards = sorted(done.folder.glob("*.safetensors"))
    assert len(shards) > 2
    index = json.loads((done.folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    ids = all_ids()
    assert torch.equal(their_logits(done.folder, ids), their_logits(source, ids))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["gpt_neox", "gptj", "llama"])
def test_trimmed_rows_are_the_tokenizers_and_the_keys_keep_theirs(
    family: str, tied: bool, tokenizer: Path, tmp_path: Path
) -> None:
    source = made(family, tmp_path / "source", tokenizer, tie_word_embeddings=tied)
    done = export(str(source), tmp_path / "out", format_of("hf"), trim=True)
    assert json.loads((done.folder / "config.json").read_text())["vocab_size"] == TOKENS < ROWS
    before, after = load_decoder(source), load_decoder(done.folder)
    assert after.embedding.weight.shape[0] == TOKENS
    assert torch.equal(after.embedding.weight, before.embedding.weight[:TOKENS])
    assert torch.equal(after.head.weight, before.head.weight[:TOKENS])
    ids = all_ids()
    theirs = their_logits(done.folder, ids)
    assert theirs.shape[-1] == TOKENS
    torch.testing.assert_close(theirs, their_logits(source, ids)[..., :TOKENS], atol=1e-5, rtol=0)


def test_the_tokenizer_and_the_end_of_answers_come_along(tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer)
    (source / "NOTICE.md").write_text("who made it")
    (source / "generation_config.json").write_text('{"eos_token_id": 0, "temperature": 0.7}')
    folder = export(str(source), tmp_path / "out", format_of("hf")).folder
    theirs = AutoTokenizer.from_pretrained(folder)
    end = Tokenizer.load(tokenizer).end_id
    assert theirs("### Instruction:\nHi\n\n### Response:\n").input_ids[-1] == TOKENS - 1
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["temperature"]) == ([end, 0], 0.7)
    assert (folder / "NOTICE.md").read_text() == "who made it"
    assert json.loads((folder / "config.json").read_text())["custom_pipelines"]
    assert (folder / "instruct_pipeline.py").is_file()


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_known_of_a_run_comes_along(dtype: torch.dtype | None, tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer)
    for _ in range(2):  # weights as Roslin writes them, with what it writes beside them
        source = export(str(source), tmp_path / f"{source.name}-again", format_of("hf")).folder
    weights = fingerprint(source)
    known = Evidence(stated=Stated(owner="Ann"), tuning=tuning(fingerprint=weights))
    write_evidence(source, known.model_copy(update={"limits": LimitsEvidence.of(limits_report(), None, weights)}))
    folder = export(str(source), tmp_path / "out", format_of("hf", dtype)).folder
    found = make_card(folder, CardOptions()).facts
    assert found.evidence.tuning == known.tuning
    assert found.evidence.stated.owner == "Ann"
    same = dtype is None
    assert (found.as_tuned, found.evidence.limits is not None) == (same, same)
    (source / "roslin.json").write_text("{")
    with pytest.raises(InputError, match=r"roslin\.json: no JSON"):
        export(str(source), tmp_path / "no", format_of("hf"))


def test_a_model_without_the_keys_is_asked_as_it_was(tmp_path: Path) -> None:
    folder = export("base", tmp_path / "out", format_of("hf")).folder
    assert not (folder / "instruct_pipeline.py").exists()
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 0
    assert (folder / "NOTICE.md").is_file()


def test_numbers_are_rounded_where_it_is_asked_for(tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer)
    done = export(str(source), tmp_path / "out", format_of("hf", torch.bfloat16))
    assert load_decoder(done.folder).dtype == torch.bfloat16
    error, bound = done.parity.weight_error, done.parity.tolerance.weight
    assert error is not None and 0 < error <= bound == 2**-8


def adapter_of(base: Path, folder: Path, tokenizer: Path) -> Path:
    """A lively adapter with rows of the keys."""
    decoder, lora = load_decoder(base), Lora(rank=4, alpha=8)
    adapt(decoder, lora, range(TOKENS - 3, TOKENS), torch.Generator().manual_seed(0))
    source = torch.Generator().manual_seed(1)
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=source)
    folder.mkdir()
    save_adapter(decoder, folder, lora, base=str(base), revision=None, base_rows=ROWS, dtype=torch.float32)
    Tokenizer.load(tokenizer).save(folder)
    return folder


@pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")
@pytest.mark.parametrize("family", ["gpt_neox", "llama"])
def test_a_merged_adapter_is_what_peft_makes_of_it(family: str, tokenizer: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    base = made(family, tmp_path / "base", tokenizer)
    adapter = adapter_of(base, tmp_path / "adapter", tokenizer)
    (base / "chat_template.jinja").write_text("{{ messages }}")
    (base / "LICENSE").write_text("the base's")
    use = AdapterEvidence(base="./base", revision=None, rows=None, rope_scaling=None)
    write_evidence(base, Evidence(stated=Stated(owner="Of the base")))
    write_evidence(adapter, Evidence(tuning=tuning(adapter=use)))
    done = export(str(adapter), tmp_path / "out", format_of("merged"))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.inference_mode():
        theirs = peft.PeftModel.from_pretrained(model, adapter)(all_ids()).logits
    found = their_logits(done.folder, all_ids())
    torch.testing.assert_close(found, theirs, atol=2e-4, rtol=0)
    assert (found - their_logits(base, all_ids())).abs().max() > 0.5
    assert not (done.folder / "adapter_config.json").exists()
    assert (done.folder / "LICENSE").read_text() == "the base's"
    assert (done.folder / "chat_template.jinja").is_file()
    assert read_evidence(done.folder) == Evidence(tuning=tuning(adapter=None))


def test_a_whole_model_has_nothing_to_merge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not an adapter"):
        export("base", tmp_path / "out", format_of("merged"))
    assert list(tmp_path.iterdir()) == []


@dataclass(frozen=True)
class LosesTheEndKey(HfExport):
    """Forgets what the end key means, as exports do that resize an embedding too late."""

    tensor: str = "gpt_neox.embed_in.weight"

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        super().write(source, decoder, folder)
        row = source.tokenizer.end_id

        def forget(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            state[self.tensor] = torch.cat(
                [state[self.tensor][:row], state[self.tensor].mean(0, keepdim=True), state[self.tensor][row + 1 :]]
            )
            return state

        rewrite(folder, forget)


class LosesTheKeys(HfExport):
    """Writes the base's tokenizer, without the keys."""

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        super().write(source, decoder, folder)
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        content["added_tokens"] = [token for token in content["added_tokens"] if "###" not in token["content"]]
        path.write_text(json.dumps(content))


class WritesNothingButNaN(HfExport):
    """What fp16 makes of a model that overflows."""

    def write(self, source: Source, decoder: Decoder, folder: Path) -> None:
        super().write(source, decoder, folder)
        rewrite(folder, lambda state: {name: tensor * float("nan") for name, tensor in state.items()})


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (LosesTheEndKey(), "error of a logit is .*, above"),
        (LosesTheEndKey(tensor="embed_out.weight"), "error of a logit is .*, above"),
        (LosesTheKeys(), "tokenizer"),
        (WritesNothingButNaN(), "is nan, above"),
    ],
)
def test_what_a_broken_writer_writes_is_not_kept(broken: Format, told: str, tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer)
    with pytest.raises(ParityError, match=told):
        export(str(source), tmp_path / "out", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_writer_that_fails_leaves_nothing(tokenizer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = made("gpt_neox", tmp_path / "source", tokenizer)
    monkeypatch.setattr(GgufExport, "write", full)
    with pytest.raises(MachineError, match="the disk is full"):
        export(str(source), tmp_path / "out", format_of("gguf"))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(InputError, match="is there already"):
        export("base", tmp_path, format_of("hf"))
    assert (tmp_path / "mine").read_text() == "keep"


def test_tokens_without_rows_are_told(tokenizer: Path, tmp_path: Path) -> None:
    source = made("gpt_neox", tmp_path / "source", tokenizer, vocab_size=8192)
    with pytest.raises(InputError, match="8,195 tokens, and the model rows for 8,192"):
        export(str(source), tmp_path / "out", format_of("hf"))


def test_settings_of_other_formats_are_told() -> None:
    with pytest.raises(UsageError, match="--dtype is not for gguf"):
        format_of("gguf", torch.float32)
    with pytest.raises(UsageError, match="--quantize is for gguf"):
        format_of("hf", None, "q8_0")


def test_ctranslate2_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(MachineError, match="pip install ctranslate2"):
        export("base", tmp_path / "out", format_of("ctranslate2"))


def test_errors_and_agreement_by_hand() -> None:
    tolerance = Tolerance(mean=0.1, largest=1.0, agreement=0.9, weight=0.01)
    source = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
    parity = compare_logits(source, torch.tensor([[1.0, 2.0], [0.0, 3.0]]), tolerance, weight_error=0.02)
    assert parity == Parity(2, 0.5, 2.0, float(source.std()), 0.5, 0.02, tolerance)
    assert len(parity.faults()) == 4
    assert compare_logits(source, source, tolerance, 0.01).faults() == []


def test_every_key_is_read_before_the_last_position(tokenizer: Path, tmp_path: Path) -> None:
    """A key whose row is wrong so changes logits that are compared."""
    from roslin.publish.parity import parity_ids

    texts = parity_ids(Tokenizer.load(tokenizer), 512)
    assert all({TOKENS - 3, TOKENS - 2, TOKENS - 1} <= set(ids) for ids in texts)
    assert all(ids[-1] < TOKENS - 3 for ids in texts)
