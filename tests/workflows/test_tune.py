"""`roslin tune` from a recipe file to a folder that transformers loads, by the command itself."""

import errno
import io
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from roslin.errors import InputError, MachineError
from roslin.model import load_decoder
from roslin.model.adapter import load_adapted
from roslin.tokens import Tokenizer
from roslin.tune import HeldOutLoss, Recipe, Tuned
from roslin.workflows.machine import enough_memory, make_folder, writing
from roslin.workflows.model_folder import _findable, hub_name
from roslin.workflows.run_folder import LOCK, alone_in, check_droppable, drop_run, recipe_yaml
from roslin.workflows.tune import _show_samples
from roslin.workflows.tuning_evidence import Gathered, base_in_words, tuning_evidence
from tiny_decoders import tiny_decoder

RECIPE = """\
model: base
records: {records}
output: {output}
held_out: {{fraction: 0.2}}
epochs: 1
records_per_update: 8
learning_rate: 3e-4
warmup_updates: 3
max_length: 512
row_length: 512
evaluate_every: 5
sample_every: 10
samples: ["What is Roslin?"]
checkpoint_every: 5
"""


@pytest.fixture
def recipe_file(some_starter_records: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(records=some_starter_records, output=tmp_path / "run"), encoding="utf-8")
    return path


def roslin(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "roslin", *words], capture_output=True, text=True, check=False)


@pytest.mark.full
def test_a_recipe_becomes_a_model_folder(recipe_file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    process = subprocess.Popen(
        [sys.executable, "-m", "roslin", "tune", str(recipe_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("update 2/"):
            process.send_signal(signal.SIGINT)
            break
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "The same command goes on" in rest

    done = roslin("tune", str(recipe_file))
    assert done.returncode == 0, done.stderr
    assert "goes on from update" in done.stderr
    assert "What is Roslin?" in done.stderr  # a sample
    folder = Path(done.stdout.strip())
    assert folder == tmp_path / "run" / "model"

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")  # transformers 4 would load float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert GenerationConfig.from_pretrained(folder).eos_token_id == Tokenizer.load(folder).end_id
    assert tokenizer.convert_tokens_to_ids("### End") == Tokenizer.load(folder).end_id
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license: cc-by-sa-4.0" in card
    assert "OpenStax" in card
    assert (folder / "NOTICE.md").is_file()
    assert "# run" in card
    assert str(tmp_path / "run" / "model") not in card

    copied = Recipe.load(tmp_path / "run" / "run.yaml")
    told = Recipe.load(recipe_file)
    assert copied.model_copy(update={"precision": told.precision, "optimizer": told.optimizer}) == told
    chosen = (copied.precision, copied.optimizer.moments, copied.optimizer.gradients)
    assert (told.optimizer.moments, told.optimizer.gradients) == ("auto", "auto")
    assert chosen in (("fp32", "fp32", "fp32"), ("bf16", "fp32", "fp32"))
    assert "betas:" in (tmp_path / "run" / "run.yaml").read_text(encoding="utf-8")  # a default

    again = roslin("tune", str(recipe_file))
    assert again.returncode == 1
    assert "already there" in again.stderr


ADAPTER = ("adapter={rank: 4, alpha: 8, modules: [query_key_value, dense]}", "learning_rate=2e-3", "epochs=0.5")


def asked(*words: str) -> str:
    answer = roslin("ask", *words, "--seed", "1", "--max-new-tokens", "8")
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


@pytest.mark.full
def test_a_recipe_becomes_an_adapter_and_a_model_with_it_merged(recipe_file: Path, tmp_path: Path) -> None:
    """First the adapter alone; asked to merge it, the same run only writes the model."""
    separate = roslin("tune", str(recipe_file), *ADAPTER, "adapter.merge=no")
    assert separate.returncode == 0, separate.stderr
    run = tmp_path / "run"
    assert Path(separate.stdout.strip()) == run / "adapter"
    assert "The adapter is in" in separate.stderr
    assert not (run / "model").exists()
    names = {path.name for path in (run / "adapter").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "NOTICE.md"} <= names
    card = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "LoRA of rank 4, alpha 8, dropout 0.05 on query_key_value, dense, and the rows of new keys" in card
    assert "library_name: peft" in card
    again = roslin("tune", str(recipe_file), *ADAPTER, "adapter.merge=no")
    assert again.returncode == 1
    assert "already there" in again.stderr

    merged = roslin("tune", str(recipe_file), *ADAPTER)
    assert merged.returncode == 0, merged.stderr
    assert Path(merged.stdout.strip()) == run / "model"
    assert "update " not in merged.stderr.replace("goes on from update", "")
    assert "the adapter merged into it; the adapter alone is in" in merged.stderr
    assert "LoRA of rank 4" in (run / "model" / "README.md").read_text(encoding="utf-8")
    asked(str(run / "model"), "What is Roslin?")

    ours, theirs = load_decoder(run / "model", dtype=torch.float32), load_adapted(run / "adapter")
    assert load_decoder(run / "model").dtype == torch.bfloat16  # as the base is stored
    for (name, merged_here), loaded in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(merged_here, loaded.float(), rtol=2**-8, atol=1e-6, msg=name)

    drop_run(run)
    assert {path.name for path in run.iterdir()} == {LOCK}


@pytest.mark.full
def test_a_4_bit_run_becomes_a_whole_model(recipe_file: Path, tmp_path: Path) -> None:
    done = roslin("tune", str(recipe_file), *ADAPTER, "adapter.quantize=nf4")
    assert done.returncode == 0, done.stderr
    assert "frozen in 4 bits (nf4)" in (tmp_path / "run" / "adapter" / "README.md").read_text(encoding="utf-8")
    asked(str(tmp_path / "run" / "model"), "What is Roslin?")


def test_check_tunes_nothing(recipe_file: Path, tmp_path: Path) -> None:
    checked = roslin("tune", str(recipe_file), "--check")
    assert checked.returncode == 0, checked.stderr
    assert "are sound" in checked.stderr
    assert not (tmp_path / "run").exists()


def test_faults_are_told_without_a_traceback(recipe_file: Path, tmp_path: Path) -> None:
    wrong = roslin("tune", str(recipe_file), "epochs=none", "colour=red")
    assert wrong.returncode == 1
    assert "The recipe has 2 faults" in wrong.stderr
    missing = roslin("tune", str(tmp_path / "none.yaml"))
    assert missing.returncode == 1
    usage = roslin("tune")
    assert usage.returncode == 2
    for process in (wrong, missing, usage):
        assert "Traceback" not in process.stderr


def test_a_bad_record_is_told_with_file_and_line(recipe_file: Path, some_starter_records: Path) -> None:
    with some_starter_records.open("a", encoding="utf-8") as file:
        file.write('{"instruction": "x", "response": ""}\n')
    lines = len(some_starter_records.read_text(encoding="utf-8").splitlines())
    process = roslin("tune", str(recipe_file))
    assert process.returncode == 1
    assert f"{some_starter_records.name}:{lines}" in process.stderr
    assert "Traceback" not in process.stderr


def old_run(folder: Path) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "weights").touch()
    for name in ("recipe.yaml", "run.yaml", "log.jsonl"):
        (folder / name).touch()


def test_restart_drops_nothing_before_the_records_are_known_to_be_sound(
    recipe_file: Path, some_starter_records: Path, tmp_path: Path
) -> None:
    old_run(tmp_path / "run")
    with some_starter_records.open("a", encoding="utf-8") as file:
        file.write('{"instruction": "x", "response": ""}\n')
    assert roslin("tune", str(recipe_file), "--restart").returncode == 1
    assert (tmp_path / "run" / "model" / "weights").is_file()


@pytest.mark.parametrize(
    "needed",
    [
        {"model": "{run}/model"},
        {"model": "{run}/../adapter"},
        {"records": ["{run}/checkpoints/mine.jsonl"]},
        {"records": ["{run}/checkpoints/*.jsonl"]},
        {"held_out": {"file": "{run}/model/held.jsonl"}},
    ],
)
def test_restart_refuses_to_drop_what_the_recipe_needs(needed: dict[str, object], tmp_path: Path) -> None:
    import json

    run = tmp_path / "run"
    old_run(run)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "mine.jsonl").touch()
    (tmp_path / "adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(run / "model")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    filled = json.loads(json.dumps(needed).replace("{run}", str(run)))
    recipe = Recipe.parse({"model": "base", "records": ["other.jsonl"], "output": str(run)} | filled)
    with pytest.raises(InputError, match="would remove what the recipe needs"):
        check_droppable(recipe)
    check_droppable(Recipe.parse({"model": "base", "records": [str(run / "own.jsonl")], "output": str(run)}))


@pytest.mark.full
def test_two_runs_in_one_folder_are_refused(recipe_file: Path, tmp_path: Path) -> None:
    """Until the first has ended; and what the first holds is not touched."""
    run = tmp_path / "run"
    run.mkdir()
    with alone_in(run):
        for words in ([], ["--restart"]):
            second = roslin("tune", str(recipe_file), *words)
            assert second.returncode == 1
            assert f"Another run is working in {run}" in second.stderr
        assert [path.name for path in run.iterdir()] == [LOCK]
    with alone_in(run):
        pass


def test_a_lock_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(MachineError, match="cannot be locked"), alone_in(tmp_path):
        pass


def test_a_dropped_run_leaves_what_is_not_its_own(tmp_path: Path) -> None:
    old_run(tmp_path)
    drop_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"clip_norm": None},
        {"held_out": {"file": "held.jsonl"}},
        {"held_out": {"split": "dolly", "count": 7}},
        {"adapter": {"rank": 2, "modules": "dense", "merge": False}},
    ],
)
def test_the_written_recipe_is_the_recipe(settings: dict[str, object], tmp_path: Path) -> None:
    recipe = Recipe.parse({"model": "base", "records": ["a.jsonl"], "output": "run"} | settings)
    path = tmp_path / "run.yaml"
    path.write_text(recipe_yaml(recipe), encoding="utf-8")
    assert Recipe.load(path) == recipe


@pytest.mark.full
def test_an_output_that_cannot_be_is_told_before_anything_is_loaded(recipe_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        refused = roslin("tune", str(recipe_file), f"output={output}")
        assert refused.returncode == 1, refused.stderr
        assert str(output) in refused.stderr
        assert "Traceback" not in refused.stderr and "Checking" not in refused.stderr
    with pytest.raises(MachineError, match="cannot be written to"):
        make_folder(Path("/proc/none"))


def test_samples_are_never_markup() -> None:
    class Model:
        text = "an [/answer] with [red]marks[/red]"

        def answer_all(self, samples: list[str], **_: object) -> list["Model"]:
            return [self]

    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("roslin.workflows.tune.Roslin", lambda *_: Model())
        _show_samples(None, None, ["What is [/x] in [bold]?"], 1, Console(file=told, width=200))  # type: ignore[arg-type]
    assert "What is [/x] in [bold]?" in told.getvalue()
    assert Model.text in told.getvalue()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_is_told(error: Exception) -> None:
    with pytest.raises(MachineError, match="row_length"), enough_memory():
        raise error


def test_other_faults_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), enough_memory():
        raise RuntimeError("shapes differ")


def test_a_full_disk_is_told() -> None:
    with pytest.raises(MachineError, match=r"Could not write run\.yaml: the disk is full"), writing(Path("run.yaml")):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_only_a_hub_name_is_a_base_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "runs" / "model.gguf").touch()
    assert hub_name("EleutherAI/pythia-2.8b") == "EleutherAI/pythia-2.8b"
    for name in ("base", "runs/model", "runs/model.gguf", str(tmp_path), "./base"):
        assert hub_name(name) is None
    assert base_in_words(str(tmp_path / "runs" / "model")) == "model"


def test_an_adapter_finds_a_file_as_its_base_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that links to another, as in the hub's cache, that is the link's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blob").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "model.gguf").symlink_to(tmp_path / "blob")
    assert _findable("runs/model.gguf", Path("runs/model.gguf")) == str(tmp_path / "runs" / "model.gguf")
    assert _findable("owner/name", tmp_path / "blob") == "owner/name"


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize(("notice", "licence"), [(True, "cc-by-sa-4.0"), (False, None)])
def test_what_is_tuned_from_a_base_with_a_notice_shares_its_licence(
    notice: bool, licence: str | None, is_file: bool, tmp_path: Path
) -> None:
    base = tmp_path / "model.safetensors" if is_file else tmp_path
    (tmp_path / "model.safetensors").touch()
    if notice:
        (tmp_path / "NOTICE.md").write_text("By somebody.", encoding="utf-8")
    loss = HeldOutLoss([4.0], [1.0], [2], ["qa"])
    evidence = tuning_evidence(
        Recipe.parse({"model": str(base), "records": ["a.jsonl"], "output": "run"}),
        Tuned(tiny_decoder("gpt_neox"), loss, loss, 1, 1, 10, 1.0, False),
        Gathered([], 0, []),
        name="run",
        before=loss,
        after=loss,
        chosen_on="",
    )
    assert evidence.base.licence == licence
    assert evidence.base.hub_name is None
    assert evidence.base.words == base.name
