"""A model folder under the real modelscope, offline: its newest release, and one of the time of Dolly's example.

1.37 and later ask for trust_remote_code; earlier ones run a folder's code without it. torch, transformers and, under
1.9.5, datasets are this environment's.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from other_versions import environment, run
from roslin import Roslin
from roslin.model import load_decoder
from roslin.publish.export import export
from roslin.publish.export_hf import HfExport
from roslin.tokens import Tokenizer
from roslin.workflows.model_folder import write_model_folder
from tiny import tiny_gpt_neox

pytestmark = pytest.mark.full

NEWEST = "modelscope[framework]==1.40.2"
OLD = "modelscope==1.9.5"
OLD_NEEDS = ("oss2==2.19.1", "addict==2.4.0", "einops==0.8.2", "gast==0.6.0", "simplejson==4.3.0", "yapf==0.43.0")
"""1.9.5 wants a datasets that no pyarrow of today runs; without what it wants it runs with today's."""

ASK = "Explain to me the difference between nuclear fission and fusion."
BIRDS = "Name three birds."

PUBLISHED = """
import json, sys
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

if __name__ == '__main__':
    model = sys.argv[1]
    pipe = pipeline(Tasks.text_generation, model=model, model_revision='v1.0.1', device='cpu',max_length=40TRUST)
    instruction = "Explain to me the difference between nuclear fission and fusion."
    output = pipe(instruction)
    print(json.dumps(output))
"""
"""The example of dolly-v2-7b's card, on a CPU; 1.37 and later want one argument more."""

CALLS = """
import json, sys, warnings
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

folder, other, length, trusted = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
ASK, BIRDS = "Explain to me the difference between nuclear fission and fusion.", "Name three birds."

def made(model, **how):
    return pipeline(Tasks.text_generation, model=model, model_revision="v1.0.1", do_sample=False, **trusted, **how)

def told(call):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        return [call(), [str(each.message) for each in heard if each.category is UserWarning]]

short = made(folder, device="cpu", max_length=length)
pipe = made(folder, max_new_tokens=10)
second = made(other, max_new_tokens=10, torch_dtype="float32")
try:
    refused = short(ASK, max_length=length - 5)
except ValueError as error:
    refused = str(error)
print(json.dumps({
    "short": told(lambda: short(ASK)),
    "enough": told(lambda: short(ASK, max_length=length + 11)),
    "refused": refused,
    "alone": [pipe(ASK), pipe(BIRDS)],
    "list": pipe([ASK, BIRDS]),
    "batch": pipe([ASK, BIRDS], batch_size=2),
    "context": pipe(BIRDS, context="Rivers."),
    "contexts": pipe([BIRDS, BIRDS], context=["Rivers.", None]),
    "record": pipe({"instruction": BIRDS, "context": "Rivers."}),
    "several": len(pipe(BIRDS, do_sample=True, num_return_sequences=2)["text"]),
    "second": second(BIRDS),
}))
"""

REFUSED = """
import sys
from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks
try:
    pipeline(Tasks.text_generation, model=sys.argv[1], model_revision="v1.0.1", device="cpu", max_length=40)
except RuntimeError as error:
    print(" ".join(str(error).split()))
"""


@pytest.fixture(scope="module")
def tuned(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As tuning writes it, with a head that answers otherwise."""
    decoder = load_decoder(folder, dtype=torch.float32)
    decoder.head.weight.data[:300] = 0
    written = tmp_path_factory.mktemp("tuned") / "model"
    tokenizer = Tokenizer.load(folder)
    write_model_folder(written, decoder, tokenizer, dtype=torch.bfloat16, base=folder, finish=lambda partial: None)
    return written


@pytest.fixture(scope="module")
def sharded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    done = export(str(folder), tmp_path_factory.mktemp("sharded") / "exported", HfExport(shard_bytes=20_000_000))
    assert len(list(done.folder.glob("*.safetensors"))) > 2
    return done.folder


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("newest") / "env", NEWEST, alone=False)


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old") / "env"
    environment(folder, *OLD_NEEDS, alone=False)
    return environment(folder, OLD, alone=True)


def run_offline(python: Path, script: str, *arguments: str, home: Path) -> str:
    """What a script prints last; its home is a new one and its network leads nowhere."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return run(python, script, *arguments, cache=home, HOME=str(home), MODELSCOPE_CACHE=str(home / "ms"), **nowhere)


def greedy(folder: Path, instruction: str, context: str | None = None, tokens: int = 10) -> dict[str, str]:
    """What Roslin answers."""
    loaded = Roslin.load(str(folder), dtype="float32")
    return {"text": loaded.answer(instruction, context, greedy=True, max_new_tokens=tokens).text}


def check_calls(python: Path, folder: Path, other: Path, home: Path, **trusted: bool) -> None:
    prompt = len(Roslin.load(str(folder)).prompts.ids(ASK, None))
    length = str(prompt + 5)
    found: dict[str, Any] = json.loads(
        run_offline(python, CALLS, str(folder), str(other), length, json.dumps(trusted), home=home)
    )
    answer, [warning] = found["short"]
    assert answer == greedy(folder, ASK, tokens=5)
    assert "5 tokens are left for the answer" in warning
    assert found["enough"] == [greedy(folder, ASK, tokens=16), []]
    assert f"the prompt alone has {prompt} tokens" in found["refused"]
    alone = [greedy(folder, ASK), greedy(folder, BIRDS)]
    assert found["alone"] == found["list"] == found["batch"] == alone
    about = greedy(folder, BIRDS, "Rivers.")
    assert found["context"] == found["record"] == about != alone[1]
    assert found["contexts"] == [about, alone[1]]
    assert found["several"] == 2
    assert found["second"] == greedy(other, BIRDS) != alone[1]


@pytest.fixture(scope="module")
def dolly(pythia_tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with the tokenizer of Dolly's, in which the published example's prompt has 35 tokens."""
    place = tmp_path_factory.mktemp("dolly")
    tokenizer = Tokenizer.load(pythia_tokenizer)
    tokenizer.add_keys()
    tokenizer.save(place / "tokenizer")
    tiny_gpt_neox(place / "source", tokenizer=place / "tokenizer", vocab_size=50304)
    return export(str(place / "source"), place / "exported", HfExport()).folder


def test_newest_answers_as_roslin_does_on_an_export_in_shards(
    newest: Path, sharded: Path, tuned: Path, tmp_path: Path
) -> None:
    check_calls(newest, sharded, tuned, tmp_path, trust_remote_code=True)


def test_newest_refuses_without_trust_remote_code(newest: Path, tuned: Path, tmp_path: Path) -> None:
    said = run_offline(newest, REFUSED, str(tuned), home=tmp_path)
    assert "If you trust this model repository, please pass trust_remote_code=True to pipeline()." in said


@pytest.mark.parametrize("trusted", [{}, {"trust_remote_code": True}], ids=["untrusted", "trusted"])
def test_old_answers_as_roslin_does(
    trusted: dict[str, bool], old: Path, sharded: Path, tuned: Path, tmp_path: Path
) -> None:
    check_calls(old, sharded, tuned, tmp_path, **trusted)


@pytest.mark.parametrize(("release", "trust"), [("newest", ", trust_remote_code=True"), ("old", "")])
def test_the_published_example_answers(
    release: str, trust: str, dolly: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python: Path = request.getfixturevalue(release)
    found = json.loads(run_offline(python, PUBLISHED.replace("TRUST", trust), str(dolly), home=tmp_path))
    assert list(found) == ["text"] and isinstance(found["text"], str)
