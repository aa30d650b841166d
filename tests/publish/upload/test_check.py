"""What keeps a folder from being published: all of it is told at once, and no secret is shown."""

import json
import os
import shutil
import string
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from publishable import CARD, publishable
from roslin.errors import InputError
from roslin.publish.upload import checked_upload
from roslin.publish.upload.machine_paths import path_in_value, paths_in
from roslin.publish.upload.secrets import secrets_in

RANDOM = "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0fG3hJ6kL9n"
SECRETS = {
    "Hugging Face": "hf_" + RANDOM[:34],
    "ModelScope": "ms-0a1b2c3d-4e5f-6789-abcd-ef0123456789",
    "OpenAI": "sk-proj-" + RANDOM,
    "AWS access": "AKIA" + "Q7RT2ZX9PLM4W8KJ",
    "GitHub token": "ghp_" + RANDOM[:36],
    "Databricks": "dapi" + "0123456789abcdef" * 2,
    "token or password that is set": f'"HF_TOKEN": "{RANDOM[:20]}"',
    "password": f"https://ada:{RANDOM[:12]}@example.org/x",
    "private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
}
LETTERS = "QwErTyUiOpAsDfGhJkLzXcVbNmqWeRtYuI"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    return publishable(tmp_path_factory.mktemp("made"), base_folder)


@pytest.fixture
def folder(tmp_path: Path, made: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def faults(folder: Path, *, allow_paths: bool = False) -> list[str]:
    with pytest.raises(InputError) as caught:
        checked_upload(folder, allow_paths=allow_paths)
    first, *lines = str(caught.value).splitlines()
    assert "nothing of it was sent" in first and str(folder) in first
    return [line.strip() for line in lines]


def test_a_folder_as_roslin_writes_it_is_fit(folder: Path) -> None:
    for name in (".DS_Store", ".gitattributes"):
        (folder / name).write_text("x")
    (folder / "__pycache__").mkdir()
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    upload = checked_upload(folder)
    names = [file.name for file in upload.files]
    assert names == sorted(names) and "model.safetensors" in names and "README.md" in names
    assert upload.left_out == [".DS_Store", ".cache/", ".gitattributes", "__pycache__/"]
    assert upload.licence == "apache-2.0"
    assert upload.size == sum(path.stat().st_size for path in folder.iterdir() if path.name in names)


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_is_named_by_file_and_line_and_not_shown(kind: str, folder: Path) -> None:
    (folder / "notes").mkdir()
    (folder / "notes" / "run.py").write_text(f"import os\n\nkey = {SECRETS[kind]!r}\n")
    [line] = faults(folder)
    assert line.startswith("notes/run.py:3: ") and kind in line
    assert SECRETS[kind] not in line and SECRETS[kind][8:] not in line


def test_secrets_in_utf_16_in_metadata_of_weights_and_in_the_tokenizer(folder: Path) -> None:
    (folder / "notes.txt").write_text(f"a\n{SECRETS['GitHub token']}\n", encoding="utf-16")
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", {"format": "pt", "token": SECRETS["Hugging Face"]})
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["note"] = SECRETS["ModelScope"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    found = faults(folder)
    assert [line.split(": ")[0] for line in found] == ["model.safetensors, token", "notes.txt:2", "tokenizer.json:1"]


def test_secrets_in_texts_with_zero_bytes(folder: Path) -> None:
    text = f"\r\na\r\n{SECRETS['Hugging Face']}\r\n"
    (folder / "be.txt").write_bytes(text.encode("utf-16-be"))
    (folder / "le.py").write_bytes(text.encode("utf-16-le"))
    (folder / "run.log").write_bytes(b"\0" * 9000 + text.encode())  # as a log that was cut while it was open
    assert [line.split(": ")[0] for line in faults(folder)] == ["be.txt:3", "le.py:3", "run.log:3"]


@pytest.mark.parametrize(
    "text",
    [
        "hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "HF_TOKEN=<your token from the settings page>",
        "HF_TOKEN: ${{ secrets.HF_TOKEN }}",
        "export OPENAI_API_KEY=$OPENAI_API_KEY_OF_THE_TEAM",
        "the task-oriented-dialogue-systems-of-the-nineties",
        "sk-learn-estimators-are-cloned-before-fitting",
        "https://user:$PASSWORD@example.org",
        "git@github.com:databrickslabs/dolly.git",
        "api_key = settings.openai_api_key_of_team_2",
        '"additional_special_token": "<|reserved_special_token_250|>"',
        'api_key="your-api-key-goes-here-1234"',
        "hf_model_name_or_path_of_the_base_model_to_tune_from",
        "hf_" + "your" * 9,
        "sha256: b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ],
)
def test_what_only_looks_like_a_secret(text: str) -> None:
    assert secrets_in(text) == []


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (f"token: hf_{LETTERS}", "a Hugging Face token"),  # the hub draws letters alone
        (f"api_org_{LETTERS}", "a Hugging Face token"),
        (rf'{{"source": ["run:\nhf_{LETTERS}\n"]}}', "a Hugging Face token"),  # as JSON spells a new line
        (rf"a\tAKIA{LETTERS[:16].upper()}", "an AWS access key"),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----", "a private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "a private key"),
        ('"comet_api_key": "3f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c"', "a token or password that is set"),
        ("COHERE_API_KEY='Zx81kQpL0mVn52RtYw3bHs7dKf9gJc4A'", "a token or password that is set"),
        (r'"os.environ[\"WANDB_API_KEY\"] = \"3f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c\""', "a token or password that is set"),
        ("client_secret: 9f86d081884c7d659a2feaa0c55ad015", "a token or password that is set"),
        (f"pypi-AgEIcHlwaS5vcmc{RANDOM}", "a PyPI token"),
    ],
)
def test_secrets_of_other_makes_and_spellings(text: str, kind: str) -> None:
    assert (1, kind) in secrets_in(text)


@given(st.text(string.ascii_letters + string.digits, min_size=34, max_size=34), st.text(max_size=40))
def test_every_drawn_token_is_found_wherever_it_stands(drawn: str, before: str) -> None:
    if len(set(drawn)) < 12:
        return
    text = f"{before} hf_{drawn}"
    assert (before.count("\n") + 1, "a Hugging Face token") in secrets_in(text)


def test_paths_are_named_with_line_key_and_what_to_do(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = "/data/models/pythia"
    config["quantization"] = {"files": ["C:\\Users\\ada\\w.bin"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "README.md").write_text(CARD + "\nTuned on `/home/ada/records.jsonl`.\n")
    (folder / "recipe.yaml").write_text("model: base\nrecords: [/srv/r.jsonl]\n")
    found = faults(folder)
    lines = (folder / "config.json").read_text().splitlines()
    at = next(number for number, line in enumerate(lines, 1) if "/data/models" in line)
    assert f"README.md:{len(CARD.splitlines()) + 2}: a path of this machine, /home/ada/records.jsonl" in found[0]
    assert found[1].startswith(f"config.json:{at}, _name_or_path: ") or found[2].startswith(
        f"config.json:{at}, _name_or"
    )
    assert any("quantization.files[0]" in line and "C:\\Users\\ada" in line for line in found)
    assert any(line.startswith("recipe.yaml:2, records[0]: ") for line in found)
    assert checked_upload(folder, allow_paths=True).licence == "apache-2.0"


@pytest.mark.parametrize(
    "path",
    ["C:/Users/ada/x.txt", "/Workspace/Users/ada@example.org/run", "/tmp/ada/x", "/local_disk0/x", "/private/var/x"],
)
def test_paths_of_more_kinds_of_machine_in_a_text(path: str) -> None:
    assert paths_in(f"Records: `{path}`.") == [(1, path)]


def test_paths_in_keys_and_in_settings_that_strict_readers_refuse(folder: Path) -> None:
    (folder / "results.json").write_text('{"loss": NaN, "by": {"/srv/ada/x.jsonl": {"n": 1}}}')
    (folder / "many.yaml").write_text("a: 1\n---\nb: /srv/ada/y\n")
    (folder / "tags.yaml").write_text("a: !ENV {home: /home/ada}\n")
    many, results, tags = faults(folder)
    assert many.startswith("many.yaml:3, b: a path of this machine, /srv/ada/y")
    assert results.startswith("results.json:1, by: a path of this machine, /srv/ada/x.jsonl")
    assert tags.startswith("tags.yaml:1: a path of this machine, /home/ada")


def test_the_base_of_an_adapter(tmp_path: Path) -> None:
    values = {"base_model_name_or_path": "/work/base", "peft_type": "LORA", "r": 8}
    (tmp_path / "adapter_config.json").write_text(json.dumps(values))
    save_file({"a": torch.zeros(2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "README.md").write_text(
        CARD.replace("base_model: EleutherAI/pythia-70m\n", "").replace("(NOTICE", "(#")
    )
    path, card = sorted(faults(tmp_path))
    assert "README.md, base_model: missing: nobody can use an adapter without its base" in (path, card)[0]
    assert "adapter_config.json:1, base_model_name_or_path" in card and "--format merged" in card


def test_tokens_of_a_vocabulary_are_no_paths(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps({"/home/ada/x": 1, "/usr/lib": 2}))
    (folder / "merges.txt").write_text("/home/ ada/x\n")
    assert checked_upload(folder)


@pytest.mark.parametrize(
    "text", ["/path/to/model", "see https://a.org/home/x/y", "s3://bucket/mnt/data", "a and/or b", "~/x", "x:\\n"]
)
def test_what_is_no_path_of_a_machine_in_a_text(text: str) -> None:
    assert paths_in(text) == []


@pytest.mark.parametrize("value", ["gelu", "EleutherAI/pythia-70m", "</s>", "/", "{{ '/x/y' }}\n{% if %}", "./model"])
def test_settings_that_are_no_paths(value: str) -> None:
    assert path_in_value(value) is None


def test_what_is_no_part_of_a_model_is_refused(folder: Path, tmp_path: Path) -> None:
    for name in ("checkpoint-200", ".git"):
        (folder / name).mkdir()
        (folder / name / "optimizer.pt").write_bytes(b"\0")
    for name in (".env", "optimizer.bin", "model.safetensors.partial", ".lock.lock", "id_rsa"):
        (folder / name).write_text("x")
    (tmp_path / "outside").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "outside")
    (folder / "lost.txt").symlink_to(tmp_path / "nothing")
    (folder / "card.md").symlink_to(folder / "README.md")
    os.mkfifo(folder / "pipe")
    found = {line.split(": ")[0]: line for line in faults(folder)}
    assert sorted(found) == sorted([
        "checkpoint-200/", ".git/", ".env", "optimizer.bin", "model.safetensors.partial", ".lock.lock", "id_rsa",
        "link.txt", "lost.txt", "pipe",
    ])  # fmt: skip
    assert "cp -rL" in found["link.txt"]
    assert "credentials" in found[".env"]


def test_folders_that_hold_no_whole_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        checked_upload(tmp_path / "none")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "model.safetensors: cut short or damaged" in faults(folder)[0]
    weights.unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    )
    none, lost = faults(folder)
    assert "no whole model is in it" in none
    assert lost.startswith("model-00001-of-00001.safetensors: missing")
    run = _run(folder)
    (run / ".lock").touch()
    (run / "facts.json").write_text('{"records": "/srv/ada/x"}')
    [line] = faults(run)  # of a run nothing else is to be mended
    assert f"one is in {run / 'model'}: give that" in line


def _run(folder: Path) -> Path:
    run = folder.parent / "run"
    tensors = {"a": torch.zeros(1)}
    (run / "model").mkdir(parents=True)
    save_file(tensors, run / "model" / "model.safetensors")
    return run


def test_a_gguf_file_alone_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(CARD.replace("(NOTICE", "(#"))
    _write_gguf(tmp_path / "m.gguf", source="https://example.org/tiny")
    assert checked_upload(tmp_path)
    (tmp_path / "README.md").rename(tmp_path / "CARD.md")
    [line] = faults(tmp_path)
    assert "write one, or copy that of the model it was made from" in line
    (tmp_path / "CARD.md").rename(tmp_path / "README.md")
    _write_gguf(tmp_path / "m.gguf", source="/home/ada/x")
    assert faults(tmp_path)[0].startswith("m.gguf, general.source.url: a path of this machine")


def _write_gguf(path: Path, *, source: str) -> None:
    writer = gguf.GGUFWriter(path, "gptneox")
    writer.add_string("general.source.url", source)
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_missing_card(folder: Path) -> None:
    (folder / "README.md").unlink()
    assert faults(folder) == ["README.md: missing: a model is published with a card; make one by `roslin card FOLDER`"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("license: apache-2.0\n", "", "README.md, license: missing"),
        ("license: apache-2.0\n", "license: other\n", "README.md, license_name: missing"),
        ("pipeline_tag: text-generation\n", "", "README.md, pipeline_tag: missing"),
        ("base_model: EleutherAI/pythia-70m", "base_model: ./base", "./base is no name on the hub"),
        ("language: [en]", "language: [en", "its metadata, the YAML"),
        ("---\n\n#", "model-index: 5\n---\n\n#", "its metadata, the YAML"),
        ("## Use", "## Words", "no heading under which it says how it is used"),
        ("## Limits", "```\n## Limits\n```", "no heading under which it says what its limits are"),
        ("(NOTICE.md#top)", "(figures/loss.png)", "links to figures/loss.png"),
        ("It knows", '<img src="loss.png"> It knows', "links to loss.png"),
    ],
)
def test_what_is_wrong_with_a_card(old: str, new: str, told: str, folder: Path) -> None:
    (folder / "README.md").write_text(CARD.replace(old, new))
    [line] = faults(folder)
    assert told in line and line.startswith("README.md")


def test_links_that_are_right(folder: Path) -> None:
    (folder / "figures").mkdir()
    (folder / "figures" / "a b.png").write_bytes(b"\x89PNG\0")
    links = "![a](figures/a%20b.png) [b](./NOTICE.md) [c](https://x.org/y) [d](#use) [e](figures/) `[f](none.md)`"
    (folder / "README.md").write_text(CARD + links)
    assert checked_upload(folder)


def test_notes_on_what_is_no_fault(folder: Path) -> None:
    (folder / "README.md").write_text(CARD.replace("base_model: EleutherAI/pythia-70m\n", ""))
    [note] = checked_upload(folder).notes
    assert "names no base_model" in note
