"""Models on ModelScope: downloaded from a site that answers, found in the cache of one that does not."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fake_modelscope import TOKEN, ModelScopeSite, fake_modelscope
from fake_site import HANG_UP, Repo
from roslin.errors import InputError, MachineError
from roslin.model import find_model, load_decoder
from roslin.model.local import licence_in, local_folder
from tiny import tiny_gpt_neox
from weight_folders import as_bin

NAME = "modelscope:ada/tiny"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelScopeSite]:
    with fake_modelscope() as site:
        settings = {"MODELSCOPE_ENDPOINT": site.address, "MODELSCOPE_CACHE": str(tmp_path / "cache")}
        for name, value in (settings | {"MODELSCOPE_HOME": str(tmp_path / "home")}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield site


def put(site: ModelScopeSite, folder: Path, *, private: bool = False, branch: str = "master") -> Repo:
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    repo = site.repos.setdefault("ada/tiny", Repo(private, {}))
    repo.branches[branch] = content
    return repo


def fetched(site: ModelScopeSite) -> list[str]:
    """The files that were asked for since this was asked last."""
    files = [asked.query["FilePath"] for asked in site.asked if asked.path.endswith("/repo")]
    site.asked.clear()
    return sorted(files)


def refusal(name: str, revision: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        find_model(name, revision)
    return str(caught.value)


def test_only_what_is_needed_is_fetched_and_only_once(site: ModelScopeSite, tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    repo = put(site, tmp_path / "model")
    repo.branches["master"] |= {"pytorch_model.bin": b"x" * 99, "flax.msgpack": b"y", "../out.json": b"{}"}
    folder = find_model(NAME)
    assert fetched(site) == ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    assert licence_in(folder) == "mit"
    assert not list((tmp_path / "cache").rglob("out.json"))
    decoders = [load_decoder(path) for path in (folder, tmp_path / "model")]
    assert torch.equal(*(decoder.embedding.weight for decoder in decoders))
    assert find_model(NAME) == folder
    assert fetched(site) == []


def test_weights_of_the_same_size_that_changed_there_or_here_are_fetched_again(
    site: ModelScopeSite, tmp_path: Path
) -> None:
    tiny_gpt_neox(tmp_path / "model")
    put(site, tmp_path / "model")
    folder = find_model(NAME)
    tiny_gpt_neox(tmp_path / "model", seed=1)
    put(site, tmp_path / "model")
    fetched(site)
    assert find_model(NAME) == folder
    assert fetched(site) == ["model.safetensors"]
    weights = (tmp_path / "model" / "model.safetensors").read_bytes()
    assert (folder / "model.safetensors").read_bytes() == weights
    (folder / "model.safetensors").write_bytes(weights[:-1] + b"!")
    find_model(NAME)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_what_arrives_damaged_is_not_kept(
    site: ModelScopeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0)
    tiny_gpt_neox(tmp_path / "model")
    repo = put(site, tmp_path / "model")
    true = repo.branches["master"]["model.safetensors"]
    answer = site.answer

    def damaged(asked):  # type: ignore[no-untyped-def]
        found = answer(asked)
        found.body = found.body.replace(true, true[:-1] + b"!")
        return found

    site.answer = damaged  # type: ignore[method-assign]
    text = refusal(NAME)
    assert "model.safetensors: FileIntegrityError" in text
    assert not list((tmp_path / "cache").rglob("model.safetensors"))
    site.answer = answer  # type: ignore[method-assign]
    assert (find_model(NAME) / "model.safetensors").read_bytes() == true


def test_bin_files_where_there_is_nothing_better_and_branches_and_tags(site: ModelScopeSite, tmp_path: Path) -> None:
    tiny_gpt_neox(tmp_path / "old")
    as_bin(tmp_path / "old", shards=2)
    put(site, tmp_path / "old")
    tiny_gpt_neox(tmp_path / "model", hidden_size=24)
    repo = put(site, tmp_path / "model", branch="small")
    repo.tags["v1.0"] = repo.branches["small"]
    assert len(list(find_model(NAME).glob("*.bin"))) == 2
    for revision in ("small", "v1.0"):
        assert json.loads((find_model(NAME, revision) / "config.json").read_text())["hidden_size"] == 24
    assert "at revision 'v2'" in refusal(NAME, "v2")
    assert "NotExistError" in refusal("modelscope:ada/none")


def test_gguf_files(site: ModelScopeSite) -> None:
    parts = {f"a-0000{at}-of-00002.gguf": b"GGUF" for at in (1, 2)}
    site.repos["ada/tiny"] = Repo(False, {"master": {"README.md": b"x", **parts}})
    first = find_model(NAME)
    assert first.name == "a-00001-of-00002.gguf"
    assert fetched(site) == sorted(parts)
    site.repos["ada/tiny"].branches["master"]["b.gguf"] = b"GGUF"
    assert f"  {NAME}/a-00001-of-00002.gguf\n  {NAME}/b.gguf" in refusal(NAME)
    assert find_model(f"{NAME}/b.gguf").read_bytes() == b"GGUF"
    assert f"GGUF files there: {NAME}/a-00001" in refusal(f"{NAME}/c.gguf")


def test_a_private_model_needs_the_token(site: ModelScopeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_gpt_neox(tmp_path / "model")
    put(site, tmp_path / "model", private=True)
    text = refusal(NAME)
    assert "MODELSCOPE_API_TOKEN" in text and "ms-hub login" in text
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    assert load_decoder(find_model(NAME)).config.width == 48


def test_without_a_network_the_cache_is_enough_or_what_it_lacks_is_told(
    site: ModelScopeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_gpt_neox(tmp_path / "model")
    put(site, tmp_path / "model")
    assert local_folder(NAME) is None
    folder = find_model(NAME)
    assert local_folder(NAME) == folder
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    assert find_model(NAME) == folder
    text = refusal("modelscope:ada/other")
    assert "http://127.0.0.1:9 is out of reach" in text and str(tmp_path / "cache") in text
    assert "`ms-hub download ada/other`" in text
    (folder / "model.safetensors").unlink()
    assert "only in part" in refusal(NAME) and "Missing: weights" in refusal(NAME)


def test_a_download_that_breaks_off_goes_on(
    site: ModelScopeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    tiny_gpt_neox(tmp_path / "model")
    put(site, tmp_path / "model")
    site.disturb = lambda asked: HANG_UP if asked.query.get("FilePath") == "model.safetensors" else None
    assert "ModelScope did not give it: model.safetensors" in refusal(NAME)
    site.disturb = lambda asked: None
    fetched(site)
    find_model(NAME)
    assert "model.safetensors" in fetched(site)


def test_the_client_is_asked_for_by_name_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(MachineError, match=r"pip install 'roslin\[modelscope\]'"):
        find_model(NAME)


def test_a_folder_of_that_name_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modelscope:ada" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model(NAME).samefile(tmp_path / "modelscope:ada" / "tiny")


@pytest.mark.parametrize(
    "name", ["modelscope:x", "modelscope:a/b/c", "modelscope:a/b@v1", "modelscope:", "ModelScope:a/b"]
)
def test_names_of_no_form_of_modelscope_are_told_its_forms(name: str, site: ModelScopeSite) -> None:
    text = refusal(name)
    assert "modelscope:owner/name/file.gguf" in text and "A revision is given apart" in text
    assert site.asked == []
