"""Models on the hub: downloaded from one that answers, found in the cache of one that does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from huggingface_hub import constants

from fake_hub import fake_hub
from roslin.errors import InputError
from roslin.model import find_model, hub
from roslin.model.local import licence_in
from tiny import tiny_gpt_neox
from weight_folders import as_bin

FIND = """
import json, sys
from roslin.errors import InputError
from roslin.model import find_model, load_decoder

found = []
for name, revision in json.loads(sys.argv[1]):
    try:
        found.append(str(find_model(name, revision)))
    except InputError as error:
        found.append(f"InputError: {error}")
print(json.dumps(found))
"""


def find(asked: list[tuple[str, str | None]], cache: Path, **environment: str) -> list[str]:
    """What `find_model` gives, or refuses, in a process with a hub and a cache of its own."""
    settings = {"HF_HUB_CACHE": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", FIND, json.dumps(asked)],
        env={**kept, **settings, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = json.loads(run.stdout)
    return found


def test_models_are_downloaded_and_found_again_without_the_hub(tmp_path: Path) -> None:
    hub, cache = tmp_path / "hub", tmp_path / "cache"
    for revision in ("main", "step1000"):
        tiny_gpt_neox(hub / "owner" / "plain" / revision, hidden_size=48 if revision == "main" else 24)
    (hub / "owner" / "plain" / "main" / "README.md").write_text("---\nlicense: mit\n---\n# Plain\n")
    tiny_gpt_neox(hub / "owner" / "old" / "main")
    as_bin(hub / "owner" / "old" / "main", shards=2)
    ggufs = hub / "owner" / "packed" / "main"
    ggufs.mkdir(parents=True)
    for name in ("a.Q4_0.gguf", "a.Q8_0-00001-of-00002.gguf", "a.Q8_0-00002-of-00002.gguf"):
        (ggufs / name).write_bytes(b"GGUF" + name.encode())
    (hub / "owner" / "one" / "main").mkdir(parents=True)
    (hub / "owner" / "one" / "main" / "b.gguf").write_bytes(b"GGUF")
    asked: list[tuple[str, str | None]] = [
        ("owner/plain", None),
        ("owner/plain", "step1000"),
        ("owner/old", None),
        ("owner/one", None),
        ("owner/packed/a.Q8_0-00001-of-00002.gguf", None),
        ("owner/packed", None),
        ("owner/packed/none.gguf", None),
        ("owner/none", None),
        ("owner/plain", "step7"),
    ]
    with fake_hub(hub) as address:
        plain, step, old, one, parts, several, none, unknown, no_step = find(asked, cache, HF_ENDPOINT=address)
        again = find(asked[:6], cache, HF_HUB_OFFLINE="1")
    assert json.loads((Path(plain) / "config.json").read_text())["hidden_size"] == 48
    assert licence_in(Path(plain)) == "mit"
    assert json.loads((Path(step) / "config.json").read_text())["hidden_size"] == 24
    assert len(list(Path(old).glob("*.bin"))) == 2
    assert Path(one).read_bytes() == b"GGUF"
    assert sorted(path.name for path in Path(parts).parent.iterdir()) == sorted(p.name for p in ggufs.iterdir())[1:]
    assert "owner/packed holds several GGUF files" in several
    assert "  owner/packed/a.Q4_0.gguf\n  owner/packed/a.Q8_0-00001-of-00002.gguf" in several
    assert "owner/packed/none.gguf is not on the hub. GGUF files there: owner/packed/a.Q4_0.gguf," in none
    assert "the hub did not give it: RepositoryNotFoundError" in unknown
    assert "at revision 'step7'" in no_step
    assert again[:5] == [plain, step, old, one, parts]
    assert again[5] == parts, "the cache holds but one"


def test_a_hub_out_of_reach_is_asked_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own client would ask it again and again for half a minute, be it for what is in the cache."""
    home = tmp_path / "models--owner--name"
    tiny_gpt_neox(home / "snapshots" / ("a" * 40))
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asks"))
    for revision in (None, "a" * 40):
        assert find_model("owner/name", revision) == home / "snapshots" / ("a" * 40)
    with pytest.raises(InputError, match=r"the hub is not asked: http://127.0.0.1:9 is out of reach \(Connect"):
        find_model("owner/other")


def test_a_hub_that_keeps_one_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Event()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(hub, "_knock", lambda endpoint, answers: done.wait(60))
    assert "does not answer within 0.01 seconds" in str(hub.why_silent())
    done.set()


def test_downloads_that_were_broken_off_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "models--owner--name"
    (home / "snapshots" / ("a" * 40)).mkdir(parents=True)
    (home / "blobs").mkdir()
    (home / "blobs" / "0123.incomplete").write_bytes(bytes(12345))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as caught:
        find_model("owner/name", "a" * 40)
    text = str(caught.value)
    assert "broken off while they came: 1, with 12,345 bytes so far" in text
    assert "missing: config.json, weights (model.safetensors, or an index and its shards), tokenizer.json" in text
    assert "the hub is not asked: HF_HUB_OFFLINE is set" in text
    assert f"`hf download owner/name --revision {'a' * 40}`" in text
