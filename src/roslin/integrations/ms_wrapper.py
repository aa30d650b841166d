"""The instruction pipeline of ModelScope for models tuned on Dolly's prompt. It needs modelscope and transformers.

It stands in the model's folder beside instruct_pipeline.py; the folder's configuration.json leads ModelScope to it:

    from modelscope.pipelines import pipeline
    from modelscope.utils.constant import Tasks
    ask = pipeline(Tasks.text_generation, model=FOLDER, trust_remote_code=True, device="cuda:0")
    ask("Explain to me the difference between nuclear fission and fusion.")["text"]

modelscope before 1.37 runs a folder's code without `trust_remote_code`. Licence: Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import transformers
from modelscope.pipelines.base import Pipeline
from modelscope.pipelines.builder import PIPELINES
from modelscope.utils.constant import Tasks
from transformers import AutoModelForCausalLM, AutoTokenizer

from .instruct_pipeline import InstructionTextGenerationPipeline

NAME = "dolly-instruction"
"""By which configuration.json asks for the class."""

DTYPE = "dtype" if int(transformers.__version__.partition(".")[0]) >= 5 else "torch_dtype"


# Forced: each folder of a process brings this class anew.
@PIPELINES.register_module(Tasks.text_generation, module_name=NAME, force=True)
class InstructionPipeline(Pipeline):  # type: ignore[misc]
    """Asks a model in Dolly's prompt and gives the answer alone, as `{"text": answer}`.

    A list of instructions gives a list of such records, and any other iterable an iterator over them. With
    `num_return_sequences` above 1, "text" is a list. Instructions and keyword arguments, at construction or at a call,
    are those of instruct_pipeline.py: `context`, `return_full_text`, `max_length` (prompt and answer together),
    `max_new_tokens`, `batch_size`, and what `generate` takes.
    """

    def __init__(
        self,
        model: str,
        device: str = "gpu",
        device_map: Any = None,
        torch_dtype: Any = "auto",
        trust_remote_code: bool = True,
        **settings: Any,
    ) -> None:
        """Load the folder `model`.

        `device` is ModelScope's: cpu, gpu, cuda:N. `torch_dtype` "auto" is that of the weights. That this code is
        trusted is settled by the time that it runs: older versions hand `trust_remote_code` on to it.
        """
        tokenizer = AutoTokenizer.from_pretrained(model)
        decoder = AutoModelForCausalLM.from_pretrained(model, device_map=device_map, **{DTYPE: torch_dtype})
        decoder.model_dir = model  # where ModelScope looks for configuration.json
        super().__init__(
            model=decoder, preprocessor=tokenizer, device=device, device_map=device_map, auto_collate=False
        )
        place = {} if device_map is not None else {"device": self.device}
        self._ask = InstructionTextGenerationPipeline(model=decoder, tokenizer=tokenizer, **place, **settings)

    def __call__(self, input: Any, **settings: Any) -> Any:
        """Answer one instruction or many."""
        if isinstance(input, list):
            return [self.postprocess(found) for found in self._ask(input, **settings)]
        if isinstance(input, Iterable) and not isinstance(input, (str, dict)):
            return map(self.postprocess, self._ask((each for each in input), **settings))
        return self.postprocess(self._ask(input, **settings))

    def postprocess(self, inputs: list[dict[str, str]], **_: Any) -> dict[str, Any]:
        """What was generated for one instruction, as ModelScope has it."""
        texts = [record["generated_text"] for record in inputs]
        return {"text": texts[0] if len(texts) == 1 else texts}
