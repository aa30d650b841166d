"""ModelScope's file in a model folder, without modelscope: test_modelscope.py runs it under the real package."""

import ast
import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import modelscope_stand_in
from roslin import Roslin

ASK = "Explain to me the difference between nuclear fission and fusion."
BIRDS = "Name three birds."
WRAPPER = "roslin.integrations.ms_wrapper"


@pytest.fixture(scope="module")
def wrapper() -> Iterator[type]:
    """The class that configuration.json asks for."""
    with pytest.MonkeyPatch.context() as patch:
        modelscope_stand_in.install(patch)
        patch.delitem(sys.modules, WRAPPER, raising=False)
        yield importlib.import_module(WRAPPER).InstructionPipeline
        sys.modules.pop(WRAPPER)


@pytest.fixture(scope="module")
def pipe(wrapper: Any, folder: Path) -> Any:
    return wrapper(model=str(folder), device="cpu", max_new_tokens=10, do_sample=False)


@pytest.fixture(scope="module")
def ours(folder: Path) -> Roslin:
    return Roslin.load(str(folder), dtype="float32")


def test_the_file_stands_alone(folder: Path) -> None:
    tree = ast.parse((folder / "ms_wrapper.py").read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    beside = {node.module for node in found if node.level}
    assert beside == {"instruct_pipeline"} and (folder / "instruct_pipeline.py").is_file()
    outside = {(node.module or "").partition(".")[0] for node in found if not node.level}
    outside |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert outside - sys.stdlib_module_names == {"modelscope", "transformers"}


def test_the_configuration_leads_to_the_class(folder: Path, wrapper: type) -> None:
    configuration = json.loads((folder / "configuration.json").read_text(encoding="utf-8"))
    name = configuration.pop("pipeline")["type"]
    assert modelscope_stand_in.REGISTERED[configuration["task"], name] is wrapper
    assert configuration == {
        "framework": "pytorch",
        "task": "text-generation",
        "allow_remote": True,
        "model": {"type": "gpt_neox"},
    }


def test_an_answer_is_a_mapping_with_roslins_greedy_text(pipe: Any, ours: Roslin) -> None:
    expected = ours.answer(ASK, greedy=True, max_new_tokens=10).text
    assert pipe(ASK) == {"text": expected} != {"text": ""}
    about = ours.answer(BIRDS, "Rivers.", greedy=True, max_new_tokens=10).text
    assert pipe(BIRDS, context="Rivers.") == pipe({"instruction": BIRDS, "context": "Rivers."}) == {"text": about}


def test_many_are_answered_as_each_alone(pipe: Any) -> None:
    alone = [pipe(ASK), pipe(BIRDS)]
    assert pipe([ASK, BIRDS]) == pipe([ASK, BIRDS], batch_size=2) == alone
    assert list(pipe(({"instruction": each} for each in (ASK, BIRDS)), batch_size=2)) == alone
    assert pipe([ASK, BIRDS], context=[None, "Rivers."]) == [alone[0], pipe(BIRDS, context="Rivers.")]
    assert pipe([]) == []


def test_several_texts_for_one_instruction_are_a_list(pipe: Any) -> None:
    torch.manual_seed(3)
    found = pipe(BIRDS, num_return_sequences=3, do_sample=True)
    assert set(found) == {"text"} and len(set(found["text"])) == 3
    [first, second] = pipe([BIRDS, ASK], num_return_sequences=2, do_sample=True, batch_size=2)
    assert len(first["text"]) == len(second["text"]) == 2


def test_max_length_counts_the_prompt(wrapper: Any, folder: Path, ours: Roslin) -> None:
    prompt = len(ours.prompts.ids(ASK, None))
    for left in (1, 15):
        pipe = wrapper(model=str(folder), device="cpu", max_length=prompt + left, do_sample=False)
        with pytest.warns(UserWarning, match=f"{left} tokens are left for the answer"):
            assert pipe(ASK) == {"text": ours.answer(ASK, greedy=True, max_new_tokens=left).text}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipe(ASK, max_length=prompt + 16) == {"text": ours.answer(ASK, greedy=True, max_new_tokens=16).text}
        assert pipe(ASK, max_new_tokens=7) == {"text": ours.answer(ASK, greedy=True, max_new_tokens=7).text}
    with pytest.raises(ValueError, match=f"the prompt alone has {prompt} tokens"):
        pipe(ASK, max_length=prompt)


@pytest.mark.parametrize("asked", [None, 5, [5], {"context": "Rivers."}, [{"role": "user", "content": "Hi"}]])
def test_what_is_no_instruction_is_refused(pipe: Any, asked: Any) -> None:
    with pytest.raises(TypeError, match="An instruction is a text, or a mapping with the text `instruction`"):
        pipe(asked)


def test_the_dtype_is_the_weights_own_or_the_callers(wrapper: Any, folder: Path, pipe: Any) -> None:
    assert pipe.model.dtype == torch.float32
    for dtype in (torch.bfloat16, "bfloat16"):
        assert wrapper(model=str(folder), torch_dtype=dtype, trust_remote_code=True).model.dtype == torch.bfloat16


def test_accelerate_may_place_the_model(wrapper: Any, folder: Path, pipe: Any) -> None:
    placed = wrapper(model=str(folder), device_map="auto", max_new_tokens=10, do_sample=False)
    assert placed(BIRDS) == pipe(BIRDS)
