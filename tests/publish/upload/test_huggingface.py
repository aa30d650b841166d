"""Publishing on the Hugging Face hub: what a fake of it is sent, again, in part, and not at all."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from fake_hub_uploads import TOKEN, HubSite, fake_hub_uploads
from fake_site import HANG_UP, Answer, Repo, refusing_once, sha256
from publishable import CARD, publishable
from roslin.errors import InputError
from roslin.publish.upload import HubAway, HubRefused, Plan, Published, Target, checked_upload, plan_upload, publish
from roslin.publish.upload.huggingface import HuggingFace

NAME = "ada/tiny"
said: list[str] = []


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubSite]:
    with fake_hub_uploads() as site:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", site.address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the fake keeps large files by the older protocol
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        monkeypatch.setattr("roslin.publish.upload.huggingface.LARGE", 50_000)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        said.clear()
        yield site


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    return publishable(tmp_path_factory.mktemp("made"), base_folder, shard_size="1MB")


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def planned(folder: Path, *, dry: bool = False, name: str = NAME, branch: str = "main", **how: object) -> Plan:
    target = Target(name, branch, **how)  # type: ignore[arg-type]
    return plan_upload(checked_upload(folder), target, HuggingFace(), say=said.append, may_be_unasked=dry)


def published(folder: Path, **how: object) -> Published:
    return publish(planned(folder, **how), HuggingFace(), say=said.append)  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refusal(folder: Path, **how: object) -> str:
    with pytest.raises(InputError) as caught:
        published(folder, **how)
    return str(caught.value)


def test_all_files_arrive_in_one_commit_of_a_private_repository(site: HubSite, folder: Path) -> None:
    done = published(folder, message="First of them")
    assert site.repos[NAME].private
    there = site.files(NAME)
    assert {name: there[name] for name in contents(folder)} == contents(folder)
    assert site.repos[NAME].commits == [("main", "First of them", sorted(contents(folder)))]
    assert len(site.sent) == len(list(folder.glob("*.safetensors"))) > 2
    assert {sha256(body) for body in site.sent.values()} == set(site.store)
    assert done.commit is not None and done.commit in str(json.dumps(HuggingFace()._api.model_info(NAME).sha))
    assert HuggingFace().address(NAME, "main") == f"{site.address}/{NAME}"


def test_a_second_run_sends_nothing_and_says_so(site: HubSite, folder: Path) -> None:
    first = published(folder)
    site.asked.clear()
    second = published(folder)
    assert site.writes == []
    assert second.sent == [] and second.commit == first.commit
    assert set(second.plan.changes.values()) == {"unchanged"}


def test_only_what_changed_is_sent(site: HubSite, folder: Path) -> None:
    published(folder)
    (folder / "README.md").write_text(CARD + "\nMore.\n", encoding="utf-8")
    (folder / "new.txt").write_text("new")
    site.asked.clear()
    assert {file.name for file in published(folder).sent} == {"README.md", "new.txt"}
    assert site.sent == {}
    assert site.repos[NAME].commits[-1][2] == ["README.md", "new.txt"]


def test_a_broken_off_upload_goes_on_with_the_rest(site: HubSite, folder: Path) -> None:
    shards = len(list(folder.glob("*.safetensors")))
    large = sum(path.stat().st_size >= 50_000 for path in folder.iterdir())
    site.disturb = lambda asked: HANG_UP if asked.method == "PUT" and len(site.store) == 2 else None
    with pytest.raises(HubAway, match="out of reach"):
        published(folder)
    assert len(site.store) == 2 and site.repos[NAME].commits == []
    assert f"2 of {large} large files have arrived" in said[-1] and "same command" in said[-1]
    site.disturb = lambda asked: None
    site.asked.clear()
    published(folder)
    assert len(site.sent) == shards - 2
    assert contents(folder).items() <= site.files(NAME).items()
    assert len(site.repos[NAME].commits) == 1


def test_ctrl_c_says_how_to_go_on(site: HubSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, calls = HuggingFace.store, []

    def interrupted(hub, name, branch, file):  # type: ignore[no-untyped-def]
        calls.append(file)
        if len(calls) == 2:
            raise KeyboardInterrupt
        store(hub, name, branch, file)

    monkeypatch.setattr(HuggingFace, "store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        published(folder)
    assert "1 of" in said[-1] and "Give the same command to go on" in said[-1]
    assert len(site.sent) == 1 and site.repos[NAME].commits == []


def test_a_dry_run_writes_nothing(site: HubSite, folder: Path) -> None:
    plan = planned(folder, dry=True)
    assert site.writes == [] and site.asked
    assert set(plan.changes.values()) == {"new"} and plan.visibility == "private"
    published(folder)
    (folder / "NOTICE.md").write_text("another")
    site.asked.clear()
    plan = planned(folder, dry=True)
    assert site.writes == []
    assert plan.changes["NOTICE.md"] == "changed" and plan.changes["config.json"] == "unchanged"


def test_a_dry_run_without_a_token_or_a_network(site: HubSite, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    plan = planned(folder, dry=True)
    assert set(plan.changes.values()) == {"unknown"} and "There is no token" in str(plan.unasked)
    assert site.asked == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "out of reach" in str(planned(folder, dry=True).unasked)


def test_an_existing_repository_keeps_its_visibility(site: HubSite, folder: Path) -> None:
    site.repos[NAME] = Repo(False, {"main": {}})
    done = published(folder)
    assert done.plan.visibility == "public"
    site.repos["ada/hidden"] = Repo(True, {"main": {}})
    assert published(folder, name="ada/hidden", public=True).plan.visibility == "private"
    assert site.repos["ada/hidden"].private and not site.repos[NAME].private
    assert not [line for line in site.writes if "create" in line or "settings" in line]


def test_public_where_that_was_asked_for_and_an_organisation(site: HubSite, folder: Path) -> None:
    published(folder, name="lab/tiny", public=True)
    assert not site.repos["lab/tiny"].private


def test_a_branch_and_a_tag(site: HubSite, folder: Path) -> None:
    published(folder, branch="next", tag="v1.0")
    assert contents(folder).items() <= site.files(NAME, "next").items()
    assert "config.json" not in site.files(NAME)
    assert site.repos[NAME].tags["v1.0"] == site.files(NAME, "next")
    assert HuggingFace().address(NAME, "next").endswith(f"/{NAME}/tree/next")
    again = published(folder, branch="next", tag="v1.0")
    assert again.sent == [] and not again.tagged
    (folder / "NOTICE.md").write_text("other")
    site.asked.clear()
    assert "has a tag v1.0 already" in refusal(folder, branch="next", tag="v1.0")
    assert "v1.0 is a tag of" in refusal(folder, branch="v1.0")
    assert site.writes == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"role": "read"}, "may only read"),
        ({"name": "bob"}, "of bob, who publishes under the names bob, lab; ada is none of them"),
    ],
)
def test_tokens_that_may_not(change: dict[str, str], told: str, site: HubSite, folder: Path) -> None:
    site.account["name"] = change.get("name", "ada")
    site.account["auth"]["accessToken"]["role"] = change.get("role", "write")
    assert told in refusal(folder)
    assert site.writes == []


def test_no_token_a_wrong_one_and_one_without_the_right(
    site: HubSite, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.disturb = lambda asked: 403 if "create" in asked.path else None
    assert "has no right to do this (HTTP 403, making ada/tiny" in refusal(folder)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong1234567890")
    text = refusal(folder)
    assert "does not know the token" in text and "hf auth login" in text and "hf_wrong" not in text
    monkeypatch.delenv("HF_TOKEN")
    assert "There is no token for the Hugging Face hub" in refusal(folder)
    assert site.repos == {}


@pytest.mark.parametrize(("path", "status"), [("whoami", 500), ("create", 503), ("preupload", 500), ("commit", 502)])
def test_failures_of_the_hub_are_tried_again_and_then_told(path: str, status: int, site: HubSite, folder: Path) -> None:
    left = [2]

    def some(asked):  # type: ignore[no-untyped-def]
        if path not in asked.path or not left[0]:
            return None
        left[0] -= 1
        return status

    site.disturb = some
    published(folder)
    assert contents(folder).items() <= site.files(NAME).items()
    assert len(site.repos[NAME].commits) == 1
    (folder / "NOTICE.md").write_text("other")
    site.disturb = lambda asked: status if "whoami" in asked.path else None
    with pytest.raises(HubAway, match=f"HTTP {status}"):
        published(folder)


def test_a_commit_whose_reply_is_lost_is_not_made_twice(site: HubSite, folder: Path) -> None:
    site.lose = lambda asked: "/commit/" in asked.path
    done = published(folder)
    assert len(site.repos[NAME].commits) == 1 and done.commit is not None


def test_a_repository_that_changes_meanwhile(site: HubSite, folder: Path) -> None:
    def meddle(asked):  # type: ignore[no-untyped-def]
        if asked.method == "PUT" and not site.repos[NAME].commits:
            site.repos[NAME].commits.append(("main", "by another", []))

    site.disturb = meddle
    assert "was changed by others meanwhile" in refusal(folder)
    assert "README.md" not in site.files(NAME)


def test_a_card_that_the_hub_does_not_take_stops_all(site: HubSite, folder: Path) -> None:
    (folder / "README.md").write_text(CARD.replace("apache-2.0", "nonsense"))
    assert '"license" must be one of' in refusal(folder)
    assert site.repos == {} and site.sent == {}


def test_what_is_left_there_of_earlier_weights_is_told(site: HubSite, folder: Path) -> None:
    site.repos[NAME] = Repo(True, {"main": {"pytorch_model.bin": b"old", "loss.png": b"x"}})
    plan = planned(folder)
    assert plan.stale == ["pytorch_model.bin"] and plan.only_there == ["loss.png", "pytorch_model.bin"]


def test_contents_that_the_hub_leaves_out_are_told(site: HubSite, folder: Path) -> None:
    mode = site.mode
    site.mode = lambda each, there: mode(each, there) | {"shouldIgnore": each["path"] == "NOTICE.md"}  # type: ignore[method-assign]
    with pytest.raises(HubAway, match=r"other contents of NOTICE\.md"):
        published(folder)


@pytest.mark.parametrize(
    "name", ["tiny", "ada/", "a b/c", "ada/x--y", "ada/x.git", "ada/../x", "ada/" + "x" * 99, "a/b/c", "ada/möbius"]
)
def test_names_of_no_repository(name: str, site: HubSite, folder: Path) -> None:
    assert "is no name of a repository" in refusal(folder, name=name)
    assert site.asked == []


def test_a_commit_is_no_branch(folder: Path) -> None:
    with pytest.raises(InputError, match="files are added to a branch"):
        planned(folder, branch="a" * 40)


def test_refusals_have_their_class() -> None:
    assert HubRefused("x").exit_code == 1 and HubAway("x").exit_code == 3


@pytest.mark.parametrize("headers", [{"Retry-After": "42"}, {"RateLimit": '"api";r=0;t=42'}])
def test_a_hub_that_says_when_to_come_again_is_asked_then(
    headers: dict[str, str], site: HubSite, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    site.disturb = refusing_once("commit", Answer(429, b"{}", headers))
    published(folder)
    assert 42 in slept and len(site.repos[NAME].commits) == 1
    assert any("asks to wait" in line and "42 s" in line for line in said)
