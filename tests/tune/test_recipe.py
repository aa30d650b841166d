"""Recipes: defaults are Dolly's, faults are all reported together with their lines."""

from pathlib import Path

import pytest

from roslin.errors import InputError
from roslin.tune.recipe import Recipe


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_are_those_of_the_published_runs(tmp_path: Path) -> None:
    recipe = Recipe.load(
        write(tmp_path, "model: EleutherAI/pythia-6.9b\nrecords: databricks/databricks-dolly-15k\noutput: runs/dolly\n")
    )
    assert recipe.records == ["databricks/databricks-dolly-15k"]
    assert (recipe.epochs, recipe.learning_rate, recipe.schedule) == (2, 5e-6, "constant")
    assert (recipe.records_per_update, recipe.max_length, recipe.seed) == (48, 2048, 42)
    assert (recipe.evaluate_every, recipe.checkpoint_every, recipe.weight_decay) == (50, 200, 0)


def test_words_override_and_reach_inside(tmp_path: Path) -> None:
    recipe = Recipe.load(
        write(tmp_path, "model: base\nrecords: a.jsonl\noutput: o\nlearning_rate: 1e-4\n"),
        ["learning_rate=2e-5", "held_out.fraction=0.2", 'samples=["Hello?"]', "output=elsewhere"],
    )
    assert recipe.learning_rate == 2e-5
    assert recipe.held_out.fraction == 0.2
    assert recipe.samples == ["Hello?"]
    assert recipe.output == Path("elsewhere")


def test_all_faults_come_together_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "model: base\n"
        "records: a.jsonl\n"
        "output: o\n"
        "lerning_rate: 1e-4\n"
        "epochs: many\n"
        "row_length: 512\n"
        "held_out:\n"
        "  count: 10\n"
        "  frction: 0.1\n"
        "schedule: square\n",
    )
    with pytest.raises(InputError) as raised:
        Recipe.load(path, ["seed=-1", "betas=[0.9, 1.5]"])
    text = str(raised.value)
    assert "The recipe has 7 faults" in text
    assert f"{path}:4: lerning_rate: unknown key" in text
    assert f"{path}:5: epochs: input should be a valid number" in text
    assert f"{path}:6: row_length: 512 is shorter than max_length 2048" in text
    assert f"{path}:9: held_out.frction: unknown key" in text
    assert f"{path}:10: schedule: input should be 'constant', 'linear' or 'cosine'" in text
    assert "command line: seed: input should be greater than or equal to 0" in text
    assert "command line: betas: each must lie in [0, 1)" in text


def test_missing_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)records: is missing.*output: is missing"):
        Recipe.load(write(tmp_path, "model: base\n"))


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ("{count: 10}", "a hash split keeps a fraction"),
        ("{split: dolly, fraction: 0.1}", "a dolly split keeps a count"),
        ("{file: b.jsonl, split: dolly}", "either a file, or a split"),
        ("{fraction: 1.5}", "less than 1"),
    ],
)
def test_impossible_held_out_sets(tmp_path: Path, held_out: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load(write(tmp_path, f"model: base\nrecords: a\noutput: o\nheld_out: {held_out}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: [", r"recipe.yaml:1: not valid YAML"),
        ("just words", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("model: a\nmodel: b\n", r"recipe.yaml:2: model: stands twice"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Recipe.load(write(tmp_path, text))


def test_a_missing_file_and_a_wrong_word(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such recipe file"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="key=value"):
        Recipe.load(write(tmp_path, "model: base\nrecords: a\noutput: o\n"), ["learning_rate"])


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Recipe.load(tmp_path)


@pytest.mark.parametrize(
    "word",
    [
        "epochs=.inf",
        "epochs=1e9",
        "learning_rate=.inf",
        'samples=[" "]',
        "seed=2020-13-45",
        "model=",
        "epochs=yes",
        "seed=on",
        "betas=[off, 0.9]",
        "patience=true",
        "held_out={split: dolly, count: yes}",
        "held_out={file: ''}",
        "adapter={rank: yes}",
        "adapter={rank: 0}",
        "adapter={dropout: 1}",
        "adapter={alpha: 0}",
        "adapter={modules: []}",
        "adapter={modules: [yes]}",
        "adapter={quantize: int8}",
        "adapter={merge: often}",
        "adapter=true",
        "optimizer={moments: int8}",
        "optimizer={gradients: fp8}",
        "optimizer={in_backward: often}",
        "optimizer={moments: yes}",
        "rope_scaling=yarn",
        "rope_scaling=4",
    ],
)
def test_settings_that_make_no_sense(tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match=word.split("=", maxsplit=1)[0]):
        Recipe.load(write(tmp_path, "model: base\nrecords: a\noutput: o\n"), [word])


@pytest.mark.parametrize("text", ["seed: 2020-13-45\n", "mapping: &m {a: *m}\n", "[" * 3000, 'revision: "\\ud800"\n'])
def test_yaml_that_breaks_readers(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError):
        Recipe.load(write(tmp_path, text))


def test_an_adapter_is_a_group_of_settings(tmp_path: Path) -> None:
    text = "model: base\nrecords: a\noutput: o\nadapter:\n  rank: 8\n  rslora: yes\n  modules: dense\n"
    adapter = Recipe.load(write(tmp_path, text), ["adapter.merge=no"]).adapter
    assert adapter is not None
    assert (adapter.rank, adapter.alpha, adapter.dropout, adapter.quantize) == (8, 32, 0.05, "none")
    assert (adapter.rslora, adapter.merge, adapter.modules) == (True, False, ["dense"])
    whole = Recipe.load(write(tmp_path, text), ["adapter={}"]).adapter
    assert whole is not None and whole.modules == ["all"]
    assert Recipe.load(write(tmp_path, text), ["adapter=null"]).adapter is None


def test_faults_of_an_adapter_have_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, "model: base\nrecords: a\noutput: o\nadapter:\n  rank: -1\n  layers: 3\n  merge: maybe\n")
    with pytest.raises(InputError) as raised:
        Recipe.load(path)
    text = str(raised.value)
    assert f"{path}:5: adapter.rank: input should be greater than 0" in text
    assert f"{path}:6: adapter.layers: unknown key. Known keys: rank, alpha, dropout" in text
    assert f"{path}:7: adapter.merge: input should be a valid boolean" in text


def test_the_optimizer_is_a_group_of_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "model: base\nrecords: a\noutput: o\n")
    plain = Recipe.load(path).optimizer
    assert (plain.moments, plain.gradients, plain.in_backward) == ("auto", "auto", False)
    words = ["optimizer.moments=8bit", "optimizer.in_backward=yes", "clip_norm=null"]
    asked = Recipe.load(path, words).optimizer
    assert (asked.moments, asked.gradients, asked.in_backward) == ("8bit", "auto", True)


def test_steps_in_the_backward_pass_exclude_clipping_and_sums(tmp_path: Path) -> None:
    path = write(tmp_path, "model: base\nrecords: a\noutput: o\noptimizer:\n  in_backward: true\n  gradients: fp32\n")
    with pytest.raises(InputError) as raised:
        Recipe.load(path)
    text = str(raised.value)
    assert f"{path}:5: optimizer.in_backward: excludes clip_norm (now 1)" in text
    assert "Set clip_norm: null" in text
    assert f"{path}:6: optimizer.gradients: fp32 sums are for several passes" in text


@pytest.mark.parametrize("value", ["some", "-1", "1.5"])
def test_a_setting_of_several_types_has_one_fault_in_plain_words(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "model: base\nrecords: a.jsonl\noutput: run\nsamples: [' ']\n")
    with pytest.raises(InputError) as raised:
        Recipe.load(path, [f"checkpointing={value}"])
    assert str(raised.value).splitlines() == [
        "The recipe has 2 faults:",
        "  command line: checkpointing: input should be 'auto', 'none', 'all' or a number of layers",
        f"  {path}:4: samples: each must hold some text",
    ]
