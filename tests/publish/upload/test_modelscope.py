"""Publishing on ModelScope, by its real client: what a fake of the site is sent, and the way back into a loader."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_modelscope import TOKEN, ModelScopeSite, fake_modelscope
from fake_site import HANG_UP, Answer, Repo, refusing_once
from publishable import CARD, publishable
from roslin.answer import Roslin
from roslin.errors import InputError
from roslin.publish.upload import HubAway, Plan, Published, Target, checked_upload, plan_upload, publish
from roslin.publish.upload.modelscope import ModelScope

NAME = "ada/tiny"
said: list[str] = []


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeSite]:
    with fake_modelscope() as site:
        settings = {"MODELSCOPE_ENDPOINT": site.address, "MODELSCOPE_CACHE": str(tmp_path / "cache")}
        settings |= {"MODELSCOPE_HOME": str(tmp_path / "home"), "MODELSCOPE_API_TOKEN": TOKEN}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        said.clear()
        yield site


@pytest.fixture
def folder(tmp_path: Path, base_folder: Path) -> Path:
    return publishable(tmp_path / "model", base_folder, shard_size="1MB")


def planned(folder: Path, *, branch: str = "master", dry: bool = False, **how: object) -> Plan:
    target = Target(NAME, branch, **how)  # type: ignore[arg-type]
    return plan_upload(checked_upload(folder), target, ModelScope(), say=said.append, may_be_unasked=dry)


def published(folder: Path, **how: object) -> Published:
    return publish(planned(folder, **how), ModelScope(), say=said.append)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        published(folder, **how)
    return str(caught.value)


@pytest.mark.filterwarnings("ignore:This model.s tokenizer has neither")
def test_what_is_published_is_loaded_again(
    site: ModelScopeSite, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = published(folder, message="First", tag="v1.0")
    assert capsys.readouterr().out == ""
    assert site.repos[NAME].private and site.licence == "apache-2.0"
    assert site.files(NAME) == contents(folder) == site.repos[NAME].tags["v1.0"]
    assert site.repos[NAME].commits == [("master", "First", sorted(contents(folder)))]
    assert done.commit == f"{1:040x}" and done.tagged
    answers = [
        Roslin.load(model, revision=revision).answer("Who?", seed=3, max_new_tokens=8).tokens
        for model, revision in (("modelscope:ada/tiny", None), ("modelscope:ada/tiny", "v1.0"), (str(folder), None))
    ]
    assert answers[0] == answers[1] == answers[2]


def test_a_second_run_and_a_dry_run_send_nothing(site: ModelScopeSite, folder: Path) -> None:
    assert set(planned(folder, dry=True).changes.values()) == {"new"}
    assert site.writes == []
    published(folder)
    site.asked.clear()
    assert published(folder).sent == []
    assert site.writes == []
    (folder / "README.md").write_text(CARD + "\nMore.\n", encoding="utf-8")
    assert [file.name for file in published(folder).sent] == ["README.md"]
    assert site.sent == {}


def test_a_broken_off_upload_goes_on_with_the_rest(site: ModelScopeSite, folder: Path) -> None:
    site.disturb = lambda asked: HANG_UP if asked.method == "PUT" and len(site.store) == 2 else None
    with pytest.raises(HubAway, match="ModelScope is out of reach"):
        published(folder)
    assert len(site.store) == 2 and site.repos[NAME].commits == [] and site.repos[NAME].private
    assert "2 of" in said[-1] and "same command" in said[-1]
    there = set(site.store)
    site.disturb = lambda asked: None
    site.asked.clear()
    published(folder)
    assert not there & {path.rsplit("/", 1)[-1] for path in site.sent}
    assert site.files(NAME) == contents(folder)
    assert len(site.repos[NAME].commits) == 1


def test_visibility_is_kept_or_asked_for(site: ModelScopeSite, folder: Path) -> None:
    site.repos[NAME] = Repo(False, {"master": {}})
    assert published(folder).plan.visibility == "public"
    assert not [line for line in site.writes if line.endswith("/models")]
    del site.repos[NAME]
    published(folder, public=True)
    assert not site.repos[NAME].private


def test_tokens_and_owners(site: ModelScopeSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.owners = {"bob"}
    text = refusal(folder)
    assert "no right to do this (making ada/tiny" in text and TOKEN not in text
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "ms-wrong")
    text = refusal(folder)
    assert "does not know the token" in text and "ms-wrong" not in text
    monkeypatch.delenv("MODELSCOPE_API_TOKEN")
    assert "There is no token for ModelScope" in refusal(folder)
    assert site.repos == {}


@pytest.mark.parametrize(("path", "status"), [("/models", 500), ("/objects/batch", 502), ("/commit/", 503)])
def test_failures_of_the_site_are_tried_again(path: str, status: int, site: ModelScopeSite, folder: Path) -> None:
    left = [1]

    def once(asked):  # type: ignore[no-untyped-def]
        if asked.method != "POST" or not (asked.path.endswith(path) or path in asked.path) or not left[0]:
            return None
        left[0] -= 1
        return status

    site.disturb = once
    published(folder)
    assert left == [0]
    assert site.files(NAME) == contents(folder) and len(site.repos[NAME].commits) == 1


def test_branches_are_those_that_are_there(site: ModelScopeSite, folder: Path) -> None:
    assert "cannot make one" in refusal(folder, branch="next")
    site.repos[NAME].branches["next"] = {}
    published(folder, branch="next")
    assert site.files(NAME, "next") == contents(folder) and site.files(NAME) == {}
    assert ModelScope().address(NAME, "next") == f"{site.address}/models/{NAME}/files?version=next"


@pytest.mark.parametrize("headers", [{"Retry-After": "42"}])
def test_a_hub_that_says_when_to_come_again_is_asked_then(
    headers: dict[str, str], site: ModelScopeSite, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    site.disturb = refusing_once("commit", Answer(429, b"{}", headers))
    published(folder)
    assert 42 in slept and len(site.repos[NAME].commits) == 1
    assert any("asks to wait" in line and "42 s" in line for line in said)
