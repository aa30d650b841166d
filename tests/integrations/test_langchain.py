"""LangChain's own packages on the pipelines and on the server, in an environment of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import roslin
from other_versions import environment, run
from served import Running

PACKAGES = ("langchain-core==1.8.3", "langchain-huggingface==1.2.3", "langchain-openai==1.7.4")
CONTEXT = "George Washington was the first president."
QUESTION = "When was he president?"

PIPELINES = """
import json, sys, torch
import roslin
from langchain_core.prompts import PromptTemplate
from langchain_huggingface import HuggingFacePipeline
from transformers import pipeline

folder, question, context = sys.argv[1:]
how = {"torch_dtype": torch.float32, "device_map": "auto", "do_sample": False, "max_new_tokens": 16}
template = PromptTemplate(input_variables=["instruction", "context"], template="{instruction}\\n\\nInput:\\n{context}")
asked = {"instruction": question, "context": context}
found = {}
for name, pipe in {
    "transformers": pipeline(model=folder, trust_remote_code=True, **how),
    "roslin": roslin.pipeline(folder, **how),
}.items():
    plain = HuggingFacePipeline(pipeline=pipe, model_id=folder)
    chain = template | plain
    full = {"pipeline_kwargs": {"return_full_text": True}}
    found[name] = {
        "invoke": chain.invoke(asked),
        "batch": chain.batch([asked, {"instruction": "Hi", "context": "x"}]),
        "stream": list(chain.stream(asked)),
        "alone": plain.invoke(question),
        "full": plain.bind(**full).invoke(question),
        "skipped": plain.bind(skip_prompt=True, **full).invoke(question),
    }
print(json.dumps(found))
"""

SERVER = """
import json, sys
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

model = ChatOpenAI(base_url=sys.argv[1], api_key="none", model="tiny", temperature=0, max_tokens=16)
chain = ChatPromptTemplate.from_messages([("user", "{instruction}\\n\\nInput:\\n{context}")]) | model
asked = {"instruction": sys.argv[2], "context": sys.argv[3]}
reply = chain.invoke(asked)
print(json.dumps({
    "invoke": reply.content,
    "tokens": reply.usage_metadata["output_tokens"],
    "batch": [one.content for one in chain.batch([asked, {"instruction": "Hi", "context": "x"}])],
    "stream": [piece.content for piece in chain.stream(asked)],
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("langchain") / "env", *PACKAGES, alone=False)


@pytest.fixture
def served(ours: Any) -> Iterator[Running]:
    made = Running(ours.model)
    yield made
    made.end()


@pytest.mark.full
def test_huggingface_pipeline_invokes_batches_and_streams(
    python: Path, folder: Path, theirs: Any, tmp_path: Path
) -> None:
    below = str(Path(roslin.__file__).parents[1])
    arguments = (str(folder), QUESTION, CONTEXT)
    found = json.loads(run(python, PIPELINES, *arguments, cache=tmp_path, PYTHONPATH=below))

    def answer(instruction: str, context: str | None = None) -> str:
        return theirs(instruction, context=context, max_new_tokens=16)[0]["generated_text"]

    expected = answer(QUESTION, CONTEXT)
    for told in found.values():
        assert told["invoke"] == expected != ""
        assert told["batch"] == [expected, answer("Hi", "x")]
        assert "".join(told["stream"]).strip() == expected
        assert len(told["stream"]) > 3
        assert told["alone"] == answer(QUESTION)
        assert told["full"] == f"{QUESTION}\n{answer(QUESTION)}"
        assert told["skipped"] == f"\n{answer(QUESTION)}"
    assert set(found) == {"transformers", "roslin"}


@pytest.mark.full
def test_chat_openai_invokes_batches_and_streams(python: Path, served: Running, theirs: Any, tmp_path: Path) -> None:
    url = str(served.client.base_url).rstrip("/") + "/v1"
    found = json.loads(run(python, SERVER, url, QUESTION, CONTEXT, cache=tmp_path))
    expected = theirs(QUESTION, context=CONTEXT, max_new_tokens=16)[0]["generated_text"]
    assert found["invoke"] == expected != ""
    assert 0 < found["tokens"] <= 16
    assert found["batch"] == [expected, theirs("Hi", context="x", max_new_tokens=16)[0]["generated_text"]]
    assert "".join(found["stream"]) == expected
    assert len([piece for piece in found["stream"] if piece]) > 3
