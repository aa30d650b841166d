"""`roslin ask` and `roslin chat` as people and scripts run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from roslin.answer import Roslin
from roslin.cli.conversation import Conversation
from roslin.tokens import Tokenizer
from tiny import tiny_gpt_neox
from tiny_decoders import tiny_decoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> str:
    """A tiny random model whose tokenizer has Dolly's keys."""
    where = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    tiny_gpt_neox(where, vocab_size=tokenizer.size)
    tokenizer.save(where)
    return str(where)


def roslin(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", "from roslin.cli.main import main; main()", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def test_an_answer_goes_to_stdout_and_what_is_about_it_to_stderr(folder: str) -> None:
    done = roslin("ask", folder, "Say something", "--seed", "4", "--max-new-tokens", "12")
    assert done.returncode == 0
    assert b"seed 4" in done.stderr
    as_json = roslin("ask", folder, "-", "--seed", "4", "--max-new-tokens", "12", "--json", stdin=b"Say something")
    assert json.loads(as_json.stdout)["answers"][0]["text"] == done.stdout.decode().strip()


@pytest.mark.full
def test_a_question_from_a_pipe_or_a_file_is_the_one_typed(folder: str, tmp_path: Path) -> None:
    (tmp_path / "context.txt").write_bytes(b"\xef\xbb\xbfA sheep.\r\n")
    how = ["--seed", "4", "--max-new-tokens", "12", "--json"]
    typed = roslin("ask", folder, "Say something", "--context", "A sheep.", *how)
    context = f"@{tmp_path / 'context.txt'}"
    piped = roslin("ask", folder, "-", "--context", context, *how, stdin=b"\xef\xbb\xbfSay something\n")
    found, wanted = json.loads(piped.stdout), json.loads(typed.stdout)
    assert (found["instruction"], found["context"]) == ("Say something", "A sheep.")
    assert found["answers"][0]["tokens"] == wanted["answers"][0]["tokens"]


def test_json_holds_all_there_is_to_know(folder: str, tmp_path: Path) -> None:
    (tmp_path / "context.txt").write_text("Über alles.", encoding="utf-8")
    done = roslin(
        "ask", folder, "Sum it up", "--context", f"@{tmp_path / 'context.txt'}", "--returns", "2", "--logprobs", "1",
        "--max-new-tokens", "3", "--top-k", "5", "--temperature", "0.7", "--top-p", "1", "--stop", "zzz", "--json",
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {"model", "instruction", "context", "answers"} == found.keys()
    assert found["context"] == "Über alles."
    assert len(found["answers"]) == 2
    answer = found["answers"][0]
    assert {"text", "tokens", "finish_reason", "logprobs", "timings", "seed"} == answer.keys()
    assert {"first_token", "total", "tokens", "tokens_per_second"} == answer["timings"].keys()
    assert [t["id"] for t in answer["logprobs"]] == answer["tokens"]
    assert {"id", "text", "logprob", "top"} == answer["logprobs"][0].keys()


@pytest.mark.full
def test_a_draft_is_named_as_a_model_is_and_one_of_other_tokens_is_refused(folder: str) -> None:
    plain = roslin("ask", folder, "Hi", "--seed", "4", "--max-new-tokens", "12")
    done = roslin("ask", folder, "Hi", "--seed", "4", "--max-new-tokens", "12", "--draft", folder)
    assert (done.returncode, done.stdout) == (0, plain.stdout)
    for command in (["ask", folder, "Hi"], ["chat", folder], ["serve", folder, "--port", "0"]):
        refused = roslin(*command, "--draft", "base")
        assert (refused.returncode, refused.stdout) == (1, b"")
        assert b"roslin: base cannot guess for" in refused.stderr
        assert b"Traceback" not in refused.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["", "--json"], 1, "instruction is empty"),
        (["Hi", "--max-new-tokens", "100000"], 1, "positions"),
        (["Hi", "--context", "@/no/such/file"], 1, "cannot be read"),
        (["Hi", "--top-p", "7", "--returns", "3"], 1, "top_p is 7"),
        (["Hi", "--seed", str(2**64), "--json"], 1, "64 bits"),
        (["Hi", "--logprobs", "-3", "--json"], 1, "logprobs is -3"),
        (["Hi", "--context", "@~nobody-of-this-name/file"], 1, "no such user"),
        (["Hi", "--logprobs", "2"], 2, "--json"),
        (["Hi", "--dtype", "int3"], 2, "dtype"),
    ],
)
def test_errors_are_said_without_a_traceback(folder: str, arguments: list[str], code: int, said: str) -> None:
    done = roslin("ask", folder, *arguments)
    assert done.returncode == code
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert done.stdout == b""


def test_a_conversation_from_a_script(folder: str, tmp_path: Path) -> None:
    saved, taken = tmp_path / "talk.jsonl", tmp_path / "taken.jsonl"
    taken.write_text("mine")
    lines = [
        "/help", "First question", "/context Some words", "Second question", "/nonsense", f"/save {saved}",
        f"/save {taken}", "/context", "\xff".encode("latin-1"), "Third question", f"/save {saved}", "/reset", "/save x",
        "/quit", "Never asked",
    ]  # fmt: skip
    script = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    done = roslin("chat", folder, "--seed", "1", "--max-new-tokens", "6", stdin=script)
    said = done.stderr.decode()
    assert done.returncode == 0, said
    parts = ["Each question stands by itself", "/context TEXT", "no /nonsense", "2 records written", "is there already"]
    parts += ["not valid UTF-8", "3 records written", "forgotten", "Nothing has been said"]
    for part in parts:
        assert part in said
    assert "Traceback" not in said
    assert taken.read_text() == "mine"
    records = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    assert [(r["instruction"], r["context"]) for r in records] == [
        ("First question", ""), ("Second question", "Some words"), ("Third question", ""),
    ]  # fmt: skip
    assert "\n".join(r["response"] for r in records) == done.stdout.decode().strip()


@pytest.mark.parametrize("command", [["ask", "/no/such/model", "Hi"], ["chat", "/no/such/model"]])
def test_settings_are_checked_before_a_model_is_loaded(command: list[str]) -> None:
    done = roslin(*command, "--temperature", "nan", "--max-new-tokens", "0", "--stop", "")
    assert done.returncode == 1
    for said in ("temperature is nan", "max_new_tokens is 0", "stop string is empty"):
        assert done.stderr.decode().count(said) == 1


@pytest.fixture
def talk(base_folder: Path) -> Conversation:
    """A conversation with a tiny random model."""
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    model = Roslin(tiny_decoder("gpt_neox", vocab_rows=tokenizer.size), tokenizer)
    return Conversation(model, {"seed": 1, "max_new_tokens": 6})


def test_a_command_may_be_followed_by_any_blank(
    talk: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.take("/context\nA sheep\nof Edinburgh\n")
    talk.take("Who?")
    talk.take(f"/save\t{tmp_path / 'talk.jsonl'}")
    assert "Context: 20 characters" in capsys.readouterr().err
    assert json.loads((tmp_path / "talk.jsonl").read_bytes())["context"] == "A sheep\nof Edinburgh"


@pytest.mark.parametrize(
    ("name", "said"),
    [("~nobody-of-this-name/x", "no such user"), ("x" * 300, "too long"), ("a\0b", "NUL"), ("/no/such/x", "No such")],
)
def test_a_path_that_cannot_be_written_or_read_leaves_the_conversation_whole(
    talk: Conversation, name: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["Who?", f"/save {name}", f"/context @{name}", "Who else?"])
    monkeypatch.setattr("roslin.cli.conversation._line_reader", lambda: lambda: next(lines, "/quit"))
    talk.run()
    told = capsys.readouterr().err
    assert told.count(said) == 2
    assert told.count("seed 1]") == 2


def test_what_was_saved_before_a_reset_is_not_written_over(
    talk: Conversation, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "talk.jsonl"
    for line in ("Who?", f"/save {path}", "Why?", f"/save {path}", "/reset", "When?", f"/save {path}"):
        talk.take(line)
    assert "is there already" in capsys.readouterr().err
    assert [json.loads(line)["instruction"] for line in path.read_text().splitlines()] == ["Who?", "Why?"]


def test_a_record_without_a_response_is_not_kept(
    base_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.load(base_folder)
    tokenizer.add_keys()
    model = Roslin(tiny_decoder("gpt_neox", vocab_rows=tokenizer.size), tokenizer)
    whole = model.answer("Who?", seed=1, max_new_tokens=6).text
    talk = Conversation(model, {"seed": 1, "max_new_tokens": 6, "stop": whole})
    talk.take("Who?")
    talk.take(f"/save {tmp_path / 'talk.jsonl'}")
    assert "Nothing has been said" in capsys.readouterr().err


def test_dolly_models_are_asked_without_importing_transformers(folder: str) -> None:
    code = (
        "import sys; from roslin.answer import Roslin; Roslin.load(sys.argv[1]).answer('Hi', max_new_tokens=2); "
        "print([name for name in ('transformers', 'datasets', 'jinja2.sandbox') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"
