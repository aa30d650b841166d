"""Reading the data of benchmarks: several formats and layouts, the copies of the hub, and what is wrong with them."""

import gzip
import sys
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from datasets.arrow_writer import ArrowWriter

from harness_tasks import Rows, write_jsonl
from roslin.errors import InputError, MachineError
from roslin.evaluate.question import Choice, Question
from roslin.evaluate.rows import SHOWN_FAULTS, load_documents, load_questions
from roslin.evaluate.tasks import TASKS

PIQA = [{"goal": f"goal {n}", "sol1": f"one, {n}", "sol2": f'"two" {n}', "label": n % 2} for n in range(3)]
ARC_HUB = [
    {"id": "a", "question": "Q1", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "answerKey": "C"},
    {"id": "b", "question": "Q2", "choices": {"text": ["v", "w"], "label": ["1", "2"]}, "answerKey": "1"},
]
ARC_FLAT = [
    {"id": "a", "question": "Q1", "choices": ["x", "y", "z"], "gold": 2},
    {"id": "b", "question": "Q2", "choices": ["v", "w"], "gold": 0},
]
BOOLQ_HUB = [{"question": "is it", "passage": "It is.", "idx": n, "label": n} for n in range(2)]
BOOLQ_FLAT = [{"question": "is it", "answer": answer, "passage": "It is."} for answer in (False, True)]


def fault_of(name: str, folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_questions(TASKS[name], folder)
    return str(caught.value)


def test_the_hub_s_layout_and_the_flat_one_hold_the_same_questions(tmp_path: Path) -> None:
    for folder, arc, boolq in (("hub", ARC_HUB, BOOLQ_HUB), ("flat", ARC_FLAT, BOOLQ_FLAT)):
        (tmp_path / folder).mkdir()
        write_jsonl(tmp_path / folder / "arc_easy_test.jsonl", arc)
        write_jsonl(tmp_path / folder / "boolq_validation.jsonl", boolq)
    for name in ("arc_easy", "boolq"):
        hub = load_questions(TASKS[name], tmp_path / "hub")
        assert hub == load_questions(TASKS[name], tmp_path / "flat")
        assert len(hub) == 2
    context = "Question: Q2\nAnswer:"
    assert load_questions(TASKS["arc_easy"], tmp_path / "hub")[1] == Question(
        (Choice(context, " v", 1), Choice(context, " w", 1)), 0
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".jsonl.gz", ".csv", ".parquet"])
def test_formats_hold_the_same_questions(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"piqa_validation{suffix}"
    match suffix:
        case ".csv":
            pa.csv.write_csv(pa.Table.from_pylist(PIQA), path)
        case ".parquet":
            pa.parquet.write_table(pa.Table.from_pylist(PIQA), path)
        case ".jsonl.gz":
            path.write_bytes(gzip.compress(write_jsonl(tmp_path / "plain", PIQA).read_bytes()))
        case _:
            write_jsonl(path, PIQA)
    found = load_questions(TASKS["piqa"], tmp_path)
    assert found == [TASKS["piqa"].question(row) for row in PIQA]
    assert [question.gold for question in found] == [0, 1, 0]


def test_nested_columns_of_parquet_are_read(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.Table.from_pylist(ARC_HUB), tmp_path / "arc_challenge_test.parquet")
    assert load_questions(TASKS["arc_challenge"], tmp_path) == [TASKS["arc_easy"].question(row) for row in ARC_FLAT]


def test_true_and_false_of_a_csv_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "boolq_validation.csv").write_text("passage,question,answer\np,q,True\np,q,false\np,q,yes\n")
    assert fault_of("boolq", tmp_path).endswith("boolq_validation.csv:4: answer: is 'yes'; expected is true or false.")


def test_fewer_rows_than_the_task_has_are_no_error(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "piqa_validation.jsonl", PIQA)
    assert len(load_questions(TASKS["piqa"], tmp_path)) == 3 != TASKS["piqa"].size


@pytest.mark.parametrize("name", ["winogrande_validation.jsonl", "winogrande_xl_validation.jsonl"])
def test_winogrande_s_file_has_two_names(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / name, [{"sentence": "A _ b.", "option1": "c", "option2": "d", "answer": "2"}])
    (question,) = load_questions(TASKS["winogrande"], tmp_path)
    assert question == Question((Choice("A c", " b.", 3), Choice("A d", " b.", 3)), 1)


def test_two_files_of_one_task_are_told(tmp_path: Path) -> None:
    for name in ("piqa_validation.jsonl", "piqa_validation.json"):
        write_jsonl(tmp_path / name, PIQA)
    assert "holds its data more than once (piqa_validation.json, piqa_validation.jsonl)" in fault_of("piqa", tmp_path)


def test_a_missing_folder_or_file_is_told_with_what_is_there(tmp_path: Path) -> None:
    assert "no such folder" in fault_of("piqa", tmp_path / "none")
    assert "holds no winogrande_validation.jsonl or winogrande_xl_validation.jsonl" in fault_of("winogrande", tmp_path)
    assert fault_of("piqa", tmp_path).endswith("It holds nothing.")
    write_jsonl(tmp_path / "piqa_train.jsonl", PIQA)
    assert fault_of("piqa", tmp_path).endswith("It holds piqa_train.jsonl.")


def test_every_bad_row_is_told_with_its_place(tmp_path: Path) -> None:
    rows: Rows = [
        PIQA[0],
        {**PIQA[0], "label": "two"},
        PIQA[1],
        {**PIQA[1], "goal": None, "sol2": 7},
        {"goal": "Where?", "sol1": "there"},
    ]
    path = write_jsonl(tmp_path / "piqa_validation.jsonl", rows)
    with path.open("a") as file:
        file.write('{"goal": \n')
    lines = fault_of("piqa", tmp_path).splitlines()
    assert lines[0] == "piqa: 5 faults in the data:"
    columns = "columns: is ['goal', 'sol1']; expected is (goal, sol1, sol2, label)."
    assert lines[1] == f"{path}:5: {columns}"
    assert lines[2] == f"{path}:2: label: is 'two'; expected is the place of the right choice, from 0 to 1."
    assert lines[3:5] == [
        f"{path}:4: sol2: is 7; expected is a text.",
        f"{path}:4: goal: is None; expected is a text.",
    ]
    assert lines[5].startswith(f"{path}:6: Broken JSON (")


def test_wrong_columns_are_told_once_with_those_of_each_layout(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "arc_easy_test.jsonl", [{"query": "q", "gold": 0}] * 500)
    expected = "(question, choices, answerKey) or (question, choices, gold)"
    assert fault_of("arc_easy", tmp_path).splitlines() == [
        "arc_easy: 1 fault in the data:",
        f"{path}:1: columns: is ['query', 'gold']; expected is {expected}. The same holds of 499 more.",
    ]


def test_many_faults_are_counted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "piqa_validation.jsonl", [{**PIQA[0], "label": 5}] * 1500)
    lines = fault_of("piqa", tmp_path).splitlines()
    assert lines[0] == "piqa: 1,500 faults in the data:"
    assert len(lines) == SHOWN_FAULTS + 2
    assert lines[-1] == "… and 1,480 more."


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "piqa_validation.jsonl").touch()
    assert "The file holds no records." in fault_of("piqa", tmp_path)


def test_an_empty_choice_cannot_be_scored_but_can_be_drawn_from(tmp_path: Path) -> None:
    rows: Rows = [{**PIQA[0], "sol2": ""}]
    path = write_jsonl(tmp_path / "piqa_validation.jsonl", rows)
    told = "choice 2: is ''; expected is a text that is not empty: acc_norm divides by its length."
    assert fault_of("piqa", tmp_path).splitlines()[1] == f"{path}:1: {told}"
    assert load_documents(TASKS["piqa"], "validation", tmp_path)[0].question.choices[1] == Choice(
        "Question: goal 0\nAnswer:", " ", 0
    )


def test_an_ending_of_nothing_but_marks_is_an_empty_choice(tmp_path: Path) -> None:
    row = {"activity_label": "a", "ctx_a": "b", "ctx_b": "c", "endings": ["x", "[step]", "y", "z"], "label": "0"}
    write_jsonl(tmp_path / "hellaswag_validation.jsonl", [row])
    assert ":1: choice 2: is '';" in fault_of("hellaswag", tmp_path)


def keep_copy(cache: Path, owner: str, name: str, config: str, split: str, rows: list[dict[str, Any]]) -> None:
    """A split as `datasets` keeps it after a download."""
    folder = cache / f"{owner}___{name}" / config / "0.0.0" / ("a" * 40)
    folder.mkdir(parents=True)
    data = datasets.Dataset.from_list(rows)
    with ArrowWriter(path=str(folder / f"{name}-{split}.arrow"), features=data.features) as writer:
        writer.write_table(data.data.table)
        writer.finalize()
    splits = datasets.SplitDict(dataset_name=name)
    splits.add(datasets.SplitInfo(name=split, num_examples=len(rows), num_bytes=1, dataset_name=name))
    info = datasets.DatasetInfo(
        features=data.features, splits=splits, builder_name="parquet", dataset_name=name, config_name=config
    )
    info.version = datasets.Version("0.0.0")
    info.write_to_directory(str(folder))


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `datasets` keeps its copies; the hub itself is out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    return tmp_path


def test_without_a_network_the_kept_copy_is_read(copies: Path) -> None:
    keep_copy(copies, "allenai", "ai2_arc", "ARC-Easy", "test", ARC_HUB)
    keep_copy(copies, "baber", "piqa", "default", "validation", PIQA)
    assert load_questions(TASKS["arc_easy"]) == [TASKS["arc_easy"].question(row) for row in ARC_FLAT]
    assert load_questions(TASKS["piqa"]) == [TASKS["piqa"].question(row) for row in PIQA]
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_a_network_or_a_copy_it_is_told_what_to_do(copies: Path) -> None:
    with pytest.raises(MachineError) as caught:
        load_questions(TASKS["arc_easy"])
    told = str(caught.value)
    assert told.startswith("arc_easy: allenai/ai2_arc/ARC-Easy/test was not found in the copies that `datasets` keeps")
    assert "http://127.0.0.1:9 is out of reach" in told
    assert told.endswith("or give --data a folder that holds arc_easy_test.jsonl.")


def test_bad_rows_of_the_hub_are_told_by_its_name(copies: Path) -> None:
    keep_copy(copies, "baber", "piqa", "default", "validation", [PIQA[0], {**PIQA[1], "label": -1}])
    with pytest.raises(InputError, match=r"baber/piqa/validation:2: label: is -1; expected is the place"):
        load_questions(TASKS["piqa"])


def test_what_the_hub_says_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("roslin.evaluate.hub_rows.why_silent", lambda: None)

    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Unknown split\nand a long list")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(MachineError, match=r"baber/piqa/validation was not found on the hub \(Unknown split\)\. Load"):
        load_questions(TASKS["piqa"])


def test_without_datasets_it_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MachineError, match=r"pip install 'roslin\[eval\]', or give --data a folder that holds boolq_"):
        load_questions(TASKS["boolq"])
