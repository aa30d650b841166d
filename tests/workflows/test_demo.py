"""The demo: short in `make test`, whole in `make test-full`."""

from pathlib import Path

import pytest

from roslin.errors import InputError
from roslin.records import load
from roslin.tune import Callbacks, Interrupted, Recipe, UpdateLog
from roslin.workflows import demo as module
from roslin.workflows.demo import Screen, demo, demo_recipe, is_about_roslin, load_result, start_over
from roslin.workflows.demo_folder import MARKER, claim, stored
from roslin.workflows.run_folder import LOCK, alone_in


def screen(said: list[str], callbacks: Callbacks | None = None) -> Screen:
    return Screen(
        step=lambda title, words: said.append(title),
        note=said.append,
        tuning=lambda: callbacks or Callbacks(),
    )


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, some_starter_records: Path) -> None:
    """A quarter of the records, one epoch, short answers."""
    whole = demo_recipe

    def cut(folder: Path) -> Recipe:
        return whole(folder).model_copy(update={"epochs": 1.0, "evaluate_every": 5})

    monkeypatch.setattr(module, "demo_recipe", cut)
    monkeypatch.setattr(module, "STARTER_RECORDS", some_starter_records)
    monkeypatch.setattr(module, "SHOWN_TOKENS", 8)
    monkeypatch.setattr(module, "JUDGED_TOKENS", 8)


@pytest.mark.full
@pytest.mark.usefixtures("short")
def test_it_stops_goes_on_and_is_reused(tmp_path: Path) -> None:
    folder = tmp_path / "demo"

    def stop(log: UpdateLog) -> None:
        if log.update == 3:
            with pytest.raises(InputError, match="Another run"), alone_in(folder / "run"):
                pass
            raise Interrupted

    with pytest.raises(Interrupted):
        demo(folder, screen([], Callbacks(on_step=stop)))
    assert load_result(folder) is None
    assert (folder / "before.json").is_file()

    said: list[str] = []
    result = demo(folder, screen(said))
    assert said[::2][:1] == ["Records"]
    assert {"Before", "Tuning", "After"} <= set(said)
    assert result.train + result.stopping + result.judged + result.reworded == len(load([module.STARTER_RECORDS]))
    assert result.loss[2].estimate < 0
    assert {shown.about_roslin for shown in result.shown} == {True, False}
    assert result.parameters > 20_000_000
    assert (folder / "model" / "README.md").is_file()

    quiet: list[str] = []
    assert demo(folder, screen(quiet)) == result
    assert quiet == []
    (folder / "notes.json").write_text("mine", encoding="utf-8")
    (folder / "records" / "mine.jsonl").touch()
    start_over(folder)
    assert load_result(folder) is None
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert left == {MARKER, LOCK, "notes.json", "records/mine.jsonl"}


def stand_in(folder: Path) -> None:
    """What a demo leaves, without running one."""
    folder.mkdir(exist_ok=True)
    claim(folder, module._fingerprint())
    (folder / "model").mkdir()
    (folder / "before.json").write_text("{}", encoding="utf-8")


def test_the_starter_recipe_is_the_demos() -> None:
    """What people are told to change and try next is what they have just seen."""
    recipe = Recipe.load(Path(__file__).parents[2] / "recipes" / "starter.yaml")
    own = {"records", "held_out", "output", "samples", "tensorboard"}
    assert recipe.model_dump(exclude=own) == demo_recipe(Path()).model_dump(exclude=own)


def test_a_folder_that_it_did_not_mark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    for act in (start_over, module.state, lambda folder: demo(folder, screen([]))):
        with pytest.raises(InputError, match="not empty"):
            act(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mine"]


def test_two_demos_in_one_folder_are_refused(tmp_path: Path) -> None:
    stand_in(tmp_path)
    with alone_in(tmp_path):
        for act in (start_over, lambda folder: demo(folder, screen([]))):
            with pytest.raises(InputError, match="Another run"):
                act(tmp_path)
    assert (tmp_path / "before.json").is_file()


def test_an_upgrade_starts_over_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path)
    said: list[str] = []
    module._claim(tmp_path, screen(said))
    assert said == []
    assert (tmp_path / "model").is_dir()
    monkeypatch.setattr("roslin.__version__", "9.9.9")
    module._claim(tmp_path, screen(said))
    assert "starting over" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == [MARKER]
    assert module.state(tmp_path) == "current"


def test_a_broken_state_file_is_made_anew(tmp_path: Path) -> None:
    stand_in(tmp_path)
    path = tmp_path / "result.json"
    for broken in ('{"loss": ', "[]", '{"loss": 1}', "\0"):
        path.write_text(broken, encoding="utf-8")
        assert load_result(tmp_path) is None
    path.write_text('{"a": ', encoding="utf-8")
    assert stored(path, lambda: {"a": 1}) == {"a": 1} == stored(path, lambda: {"a": 2})


def test_the_parts_share_no_record_and_no_response_judges_what_was_taught(tmp_path: Path) -> None:
    parts = module._check_and_split(tmp_path, screen([]))
    several = [parts.train, parts.stopping, parts.judged, parts.reworded]
    questions = [{(r.instruction, r.context) for r in part} for part in several]
    assert sum(map(len, questions)) == len(set().union(*questions)) == len(load([module.STARTER_RECORDS]))
    taught = {r.response for r in parts.train}
    assert not any(r.response in taught for r in parts.stopping + parts.judged)
    assert all(r.response in taught and is_about_roslin(r) and not r.context for r in parts.reworded)
    assert min(map(len, questions)) >= 30
    assert sum(map(is_about_roslin, parts.judged)) >= 10
    shown = module._shown_records(parts)
    assert len(shown) == 7
    assert sum(map(is_about_roslin, shown)) == 3


@pytest.mark.full
def test_the_whole_demo_keeps_its_promises(tmp_path: Path) -> None:
    """Held-out loss lower by more than its interval, with and without the end key, and answers that stop."""
    result = demo(tmp_path / "demo", screen([]))
    assert result.loss[2].high < 0
    assert result.loss_without_end[2].high < 0
    assert result.about_roslin[1] < result.about_roslin[0] - 0.5
    assert result.recalled >= result.reworded / 4
    assert result.stop_share.estimate >= 0.95
