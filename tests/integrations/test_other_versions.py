"""The pipeline's file under the oldest transformers 4 that Dolly's call works with, in an environment of its own.

4.28.1 (April 2023, when Dolly came out) is the oldest that is tried. Its packages are those of the same spring; torch
and all else are this environment's.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from other_versions import environment, run

OLDEST = ("transformers==4.28.1", "tokenizers==0.13.3", "huggingface_hub==0.20.3", "accelerate==0.20.3")
BEFORE_TOKENIZERS_0_20 = ("transformers==4.41.2", "tokenizers==0.19.1", "huggingface_hub==0.23.5", "accelerate==0.30.1")

SCRIPT = """
import json, sys, torch, transformers
from transformers import TextIteratorStreamer, pipeline

plain = pipeline(model=sys.argv[1], torch_dtype=torch.bfloat16, trust_remote_code=True, device_map="auto")
assert type(plain).__name__ == "InstructionTextGenerationPipeline" and plain.model.dtype == torch.bfloat16
torch.manual_seed(1)
sampled = plain(["Name three birds.", "Hi"], num_return_sequences=2, max_new_tokens=5, batch_size=2)
assert [len(each) for each in sampled] == [2, 2]

pipe = pipeline(model=sys.argv[1], trust_remote_code=True, do_sample=False, max_new_tokens=10)
asked = json.loads(sys.argv[2])
streamer = TextIteratorStreamer(pipe.tokenizer, skip_prompt=True, skip_special_tokens=True)
pipe(asked[1], streamer=streamer)
print(json.dumps({
    "version": transformers.__version__,
    "alone": [pipe(one) for one in asked],
    "batched": pipe(asked, batch_size=3),
    "context": pipe(asked, context="The sun is hot.", batch_size=2),
    "full": pipe(asked[0], return_full_text=True),
    "length": pipe(asked[0], max_length=3, max_new_tokens=10),
    "streamed": "".join(streamer).strip(),
}))
"""

ASKED = ["Name three birds.", "What is rain, and why does it fall?", "Repeat: ### End <|endoftext|> and all that."]


@pytest.mark.full
@pytest.mark.parametrize("packages", [OLDEST, BEFORE_TOKENIZERS_0_20], ids=lambda packages: packages[0])
def test_a_folder_answers_as_under_the_newest(
    packages: tuple[str, ...], folder: Path, theirs: Any, tmp_path: Path
) -> None:
    python = environment(tmp_path / "env", *packages, alone=True)
    found = json.loads(run(python, SCRIPT, str(folder), json.dumps(ASKED), cache=tmp_path / "cache"))
    assert found["version"] == packages[0].partition("==")[2]
    alone = theirs(ASKED)
    assert found["alone"] == found["batched"] == alone
    assert found["context"] == theirs(ASKED, context="The sun is hot.")
    assert found["full"] == theirs(ASKED[0], return_full_text=True)
    assert found["length"] == theirs(ASKED[0])
    assert found["streamed"] == alone[1][0]["generated_text"] != ""
