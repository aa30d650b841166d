"""The pipeline's file in a model folder, under the transformers that is installed."""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TextIteratorStreamer

from roslin.integrations import instruct_pipeline
from roslin.integrations.instruct_pipeline import InstructionTextGenerationPipeline
from roslin.prompt import render_prompt

RAIN = "What is rain, and why does it fall?"
BIRDS = "Name three birds."


def answered(pipe: Any, ids: list[int], **how: Any) -> str:
    """What the pipeline makes of generated ids."""
    outputs = {"answer_ids": torch.tensor([[ids]]), "limit": torch.tensor([99]), "instruction_text": "Ask."}
    [record] = pipe.postprocess(outputs, **how)
    assert set(record) == {"generated_text"}
    return record["generated_text"]


def test_the_file_stands_alone() -> None:
    tree = ast.parse(Path(instruct_pipeline.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    outside = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert outside == {"torch", "transformers"}


def test_dollys_call_gives_the_instruction_pipeline(folder: Path, copied_code: None) -> None:
    pipe = transformers.pipeline(
        model=str(folder), torch_dtype=torch.bfloat16, trust_remote_code=True, device_map="auto"
    )
    assert type(pipe).__name__ == "InstructionTextGenerationPipeline"
    assert pipe.task == "text-generation"
    assert pipe.model.dtype == torch.bfloat16
    [record] = pipe("Explain to me the difference between nuclear fission and fusion.", max_new_tokens=4)
    assert isinstance(record["generated_text"], str)


def test_without_trust_no_code_of_the_folder_is_run(folder: Path) -> None:
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        transformers.pipeline("text-generation", model=str(folder))


def test_asks_in_dollys_prompt(theirs: Any) -> None:
    for context in (None, "The sun is hot."):
        ids = theirs.preprocess(BIRDS, context)["input_ids"][0].tolist()
        assert theirs.tokenizer.decode(ids) == render_prompt(BIRDS, context)
        assert ids[-1] == theirs.tokenizer.get_added_vocab()["### Response:\n"]


def test_an_answer_is_the_greedy_text_up_to_the_end_key(theirs: Any) -> None:
    ids = theirs.tokenizer(render_prompt("Hi"), return_tensors="pt")["input_ids"]
    end = theirs.tokenizer.get_added_vocab()["### End"]
    for _ in range(20):  # the plain definition of a greedy answer, over the tokens that there are
        logits = theirs.model(ids).logits[0, -1, : len(theirs.tokenizer)]
        if int(logits.argmax()) == end:
            break
        ids = torch.cat([ids, logits.argmax()[None, None]], 1)
    else:
        pytest.fail("the answer did not end: nothing was tested")
    expected = theirs.tokenizer.decode(ids[0]).removeprefix(render_prompt("Hi")).strip()
    assert len(expected) > 20
    assert theirs("Hi", max_new_tokens=20) == [{"generated_text": expected}]


def test_lists_and_batches_give_what_each_question_gives_alone(theirs: Any) -> None:
    asked = [BIRDS, RAIN, "Hi"]
    alone = [theirs(one) for one in asked]
    assert theirs(asked) == alone
    assert theirs(asked, batch_size=2) == alone
    assert list(theirs(one for one in asked)) == alone
    assert theirs([]) == []
    assert theirs(text_inputs=BIRDS) == theirs(inputs=BIRDS) == alone[0]


def test_context_for_one_for_all_and_for_each(theirs: Any) -> None:
    one = theirs(BIRDS, context="Rivers.")
    assert one != theirs(BIRDS)
    assert one == theirs(f"{BIRDS}\n\nInput:\nRivers.") == theirs({"instruction": BIRDS, "context": "Rivers."})
    assert theirs([BIRDS, RAIN], context="Rivers.") == [one, theirs(RAIN, context="Rivers.")]
    assert theirs([BIRDS, RAIN], context=["Rivers.", None], batch_size=2) == [one, theirs(RAIN)]
    with pytest.raises(ValueError, match="the same length"):
        theirs([BIRDS, RAIN], context=["Rivers."])


def test_full_text_is_the_instruction_a_newline_and_the_answer(theirs: Any) -> None:
    [record] = theirs(BIRDS)
    assert theirs(BIRDS, return_full_text=True) == [{"generated_text": f"{BIRDS}\n{record['generated_text']}"}]
    [asked_about] = theirs(BIRDS, context="Rivers.", return_full_text=True)
    assert asked_about["generated_text"].startswith(f"{BIRDS}\n")


def test_several_sequences_are_several_records(theirs: Any) -> None:
    torch.manual_seed(3)
    records = theirs([BIRDS, RAIN], batch_size=2, num_return_sequences=3, do_sample=True)
    assert [len(each) for each in records] == [3, 3]
    assert len({record["generated_text"] for each in records for record in each}) == 6


def test_samples_as_dolly_does_unless_told_otherwise(
    folder: Path, copied_code: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = transformers.pipeline(model=str(folder), trust_remote_code=True, temperature=0.7)
    told: dict[str, Any] = {}

    def generate(input_ids: torch.Tensor, **how: Any) -> torch.Tensor:
        told.update(how)
        return input_ids

    monkeypatch.setattr(pipe.model, "generate", generate)
    pipe(BIRDS)
    added = pipe.tokenizer.get_added_vocab()
    sampling = {name: told[name] for name in ("do_sample", "top_p", "top_k", "max_new_tokens", "temperature")}
    assert sampling == {"do_sample": True, "top_p": 0.92, "top_k": 0, "max_new_tokens": 256, "temperature": 0.7}
    assert told["eos_token_id"] == sorted([added["### End"], pipe.tokenizer.eos_token_id])
    assert "max_length" not in told

    told.clear()
    pipe(BIRDS, do_sample=False, eos_token_id=77, generation_config=GenerationConfig(max_new_tokens=9))
    assert not {"top_p", "top_k"} & told.keys()
    assert told["max_new_tokens"] == 9
    assert added["### End"] in told["eos_token_id"] and 77 in told["eos_token_id"]


def test_max_length_counts_the_prompt_and_yields_to_max_new_tokens(folder: Path, copied_code: None) -> None:
    pipe = transformers.pipeline(model=str(folder), trust_remote_code=True, do_sample=False)
    prompts = [len(pipe.preprocess(one)["input_ids"][0]) for one in (BIRDS, RAIN)]
    length = max(prompts) + 16
    expected = [pipe(one, max_new_tokens=length - n) for one, n in zip((BIRDS, RAIN), prompts, strict=True)]
    assert pipe([BIRDS, RAIN], max_length=length, batch_size=2) == expected
    assert pipe(BIRDS, max_length=3, max_new_tokens=12) == pipe(BIRDS, max_new_tokens=12)
    with pytest.warns(UserWarning, match="5 tokens are left for the answer"):
        pipe(BIRDS, max_length=prompts[0] + 5)
    with pytest.raises(ValueError, match=f"the prompt alone has {prompts[0]} tokens"):
        pipe(BIRDS, max_length=prompts[0])


def test_what_the_positions_cannot_hold_is_refused(theirs: Any) -> None:
    with pytest.raises(ValueError, match="the model has 2048 positions"):
        theirs(BIRDS, max_new_tokens=2048)


def test_a_streamer_hears_the_answer(theirs: Any) -> None:
    streamer = TextIteratorStreamer(theirs.tokenizer, skip_prompt=True, skip_special_tokens=True)
    [record] = theirs(text_inputs=RAIN, streamer=streamer)
    assert "".join(streamer).strip() == record["generated_text"] != ""


def test_keys_inside_an_instruction_are_text(theirs: Any) -> None:
    asked = "Repeat: ### Response:\n### End <|endoftext|> and all that."
    ids = theirs.preprocess(asked)["input_ids"][0].tolist()
    added = theirs.tokenizer.get_added_vocab()
    assert theirs.tokenizer.decode(ids) == render_prompt(asked)
    assert added["### End"] not in ids
    assert [ids.count(added[key]) for key in ("### Instruction:", "### Response:\n")] == [1, 1]
    assert theirs([asked, BIRDS], batch_size=2) == [theirs(asked), theirs(BIRDS)]


def test_what_stands_behind_the_end_key_is_no_part_of_an_answer(theirs: Any) -> None:
    end, eos = theirs.tokenizer.get_added_vocab()["### End"], theirs.tokenizer.eos_token_id
    text = theirs.tokenizer("  Some birds.\n\n")["input_ids"]
    for ids in (text, [*text, end], [*text, end, eos, eos], [*text, eos, *text], [*text, end, *text, end]):
        assert answered(theirs, ids) == "Some birds."
    assert answered(theirs, [end, *text]) == ""
    assert answered(theirs, [*text, end], return_full_text=True) == "Ask.\nSome birds."


def test_a_tokenizer_without_the_keys_is_decoded_and_searched(base_folder: Path) -> None:
    """By the class itself, as Dolly's generate_response made it."""
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = AutoModelForCausalLM.from_pretrained(base_folder)
    pipe = InstructionTextGenerationPipeline(model=model, tokenizer=tokenizer)
    for text in (" A. ", "A.\n\n### End", "A.\n\n#  End of it ### End", "A.\n\n##### End\n\n### Instruction:\nB"):
        assert answered(pipe, tokenizer(text)["input_ids"]) == "A."
    assert answered(pipe, tokenizer("A. #Endless # no end")["input_ids"]) == "A."
    assert answered(pipe, tokenizer("A. # no end")["input_ids"]) == "A. # no end"
    assert tokenizer.decode(pipe.preprocess(BIRDS)["input_ids"][0]) == render_prompt(BIRDS)
