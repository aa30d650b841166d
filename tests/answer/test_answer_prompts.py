"""Chat templates, with transformers as the oracle."""

import json
from pathlib import Path

import pytest
import transformers

from gguf_files import write_tokenizer
from roslin.answer.prompts import ChatPrompts, choose_prompts
from roslin.errors import InputError
from roslin.tokens import Tokenizer

TEMPLATE = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
    {%- if loop.last and message.role != 'user' %}{% break %}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{{ {'a': 'é'} | tojson }}{{ eos_token }}{% endif %}
{{- pad_token }}{{ add_bos_token }}"""


@pytest.fixture(params=["setting", "list", "file"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, base_folder: Path) -> Path:
    content = json.loads((base_folder / "tokenizer.json").read_text())
    size = max(content["model"]["vocab"].values()) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for id, text in enumerate(["<|im_start|>", "<|im_end|>"], size):
        content["added_tokens"].append({"id": id, "content": text, **flags})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((base_folder / "tokenizer_config.json").read_text())
    if request.param == "setting":
        settings["chat_template"] = TEMPLATE
    elif request.param == "list":
        settings["chat_template"] = [{"name": "tool", "template": "no"}, {"name": "default", "template": TEMPLATE}]
    else:
        (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    settings |= {"pad_token": None, "add_bos_token": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [size + 1]}))
    return tmp_path


def test_ids_equal_transformers(folder: Path) -> None:
    prompts, notice = choose_prompts("auto", Tokenizer.load(folder), folder)
    assert notice is None
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    for instruction, context in [("Hello there", None), ("  What? \n", None), ("Sum it up.", "A text.\n\nIn parts.")]:
        content = f"{instruction}\n\nInput:\n{context}" if context else instruction
        messages = [{"role": "user", "content": content}]
        expected = oracle.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert prompts.ids(instruction, context) == expected
    assert oracle.convert_tokens_to_ids("<|im_end|>") in prompts.stop_ids


@pytest.mark.parametrize("content", ["<|im_start|>", "<|im_end|>"])
def test_what_people_write_is_plain_text_even_if_the_template_holds_the_same(folder: Path, content: str) -> None:
    prompts, _ = choose_prompts("auto", Tokenizer.load(folder), folder)
    text, empty = prompts.ids(content, None), prompts.ids("", None)
    split = next(n for n in range(len(empty)) if empty[n] != text[n])
    plain = Tokenizer.load(folder).encode(content)
    assert text == [*empty[:split], *plain, *empty[split:]]


@pytest.mark.parametrize(
    "template",
    [
        "{% if tools is not none or documents is not none %}tools{% endif %}{{ messages[0].content }}",
        "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}",
    ],
)
def test_templates_see_what_transformers_shows_them(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    prompts = ChatPrompts.read(folder, Tokenizer.load(folder))
    oracle = transformers.AutoTokenizer.from_pretrained(folder)
    expected = oracle.apply_chat_template([{"role": "user", "content": "Hello"}], return_dict=False)
    assert prompts is not None
    assert prompts.ids("Hello", None) == expected


def test_a_gguf_file_is_asked_as_its_folder_is(folder: Path, tmp_path: Path) -> None:
    expected = ChatPrompts.read(folder, Tokenizer.load(folder))
    end = {"bos_token_id": 0, "eos_token_id": 0, "chat_template": TEMPLATE}
    path = write_tokenizer(tmp_path / "m.gguf", folder / "tokenizer.json", "olmo", **end)
    tokenizer = Tokenizer.load(path)
    prompts, notice = choose_prompts("auto", tokenizer, path)
    assert isinstance(prompts, ChatPrompts) and expected is not None and notice is None
    for instruction in ("Hello there", "Say <|im_end|> twice: <|im_end|>"):
        assert prompts.ids(instruction, "A text.") == expected.ids(instruction, "A text.")
    assert prompts.stop_ids == expected.stop_ids
    bare = write_tokenizer(tmp_path / "bare.gguf", folder / "tokenizer.json", "olmo")
    assert ChatPrompts.read(bare, Tokenizer.load(bare)) is None


def test_special_tokens_in_an_instruction_are_plain_text(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    prompts = ChatPrompts.read(folder, tokenizer)
    assert prompts is not None
    [end] = prompts.stop_ids - {tokenizer.eos_id}
    ids = prompts.ids("Say <|im_end|> twice: <|im_end|>", None)
    assert ids.count(end) == prompts.ids("Say it twice", None).count(end) == 1
    assert "Say <|im_end|> twice: <|im_end|>" in tokenizer.decode(ids)
    with pytest.raises(InputError, match="reword"):
        prompts.ids(" <|im_end|> ", None)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('only French') }}", "only French"),
        ("{{ messages.append(1) }}", "cannot be rendered"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "cannot be rendered"),
        ("{% if %}", "cannot be rendered"),
        ("{{ messages[0].content + 1 }}", "cannot be rendered"),
        ("{{ range(10 ** 9) }}", "cannot be rendered"),
    ],
)
def test_a_template_that_fails_or_reaches_too_far_is_a_clear_error(folder: Path, template: str, said: str) -> None:
    (folder / "chat_template.jinja").write_text(template)
    prompts = ChatPrompts.read(folder, Tokenizer.load(folder))
    assert prompts is not None
    with pytest.raises(InputError, match=said):
        prompts.ids("Hello", None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("generation_config.json", b"{", "one JSON object"),
        ("generation_config.json", b"[]", "one JSON object"),
        ("generation_config.json", b'{"eos_token_id": "</s>"}', "eos_token_id is '</s>'"),
        ("generation_config.json", b"\xff", "not valid UTF-8"),
        ("chat_template.jinja", b"\xff", "not valid UTF-8"),
    ],
)
def test_a_broken_file_is_named(folder: Path, name: str, content: bytes, said: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{said}"):
        ChatPrompts.read(folder, Tokenizer.load(folder))


@pytest.mark.parametrize("content", ["{}", '{"eos_token_id": null}'])
def test_an_answer_need_not_have_an_end_of_its_own(folder: Path, content: str) -> None:
    (folder / "generation_config.json").write_text(content)
    tokenizer = Tokenizer.load(folder)
    prompts = ChatPrompts.read(folder, tokenizer)
    assert prompts is not None
    assert prompts.stop_ids == {tokenizer.eos_id}
