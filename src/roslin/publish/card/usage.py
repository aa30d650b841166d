"""How the model is used, in code that runs as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from roslin.publish.markdown import code, fenced

if TYPE_CHECKING:
    from roslin.publish.card.facts import CardFacts
    from roslin.publish.evidence import AdapterEvidence

QUESTION = "Explain to me the difference between nuclear fission and fusion."


def usage(facts: CardFacts) -> str:
    """The section: only what the folder has the files for."""
    folder = "adapter" if facts.files.adapter else "model"
    parts = ["## Usage", f"With this folder as `./{folder}`:", _roslin(folder)]
    tuning = facts.evidence.tuning
    if tuning and tuning.adapter and facts.files.adapter:
        parts += [_peft(tuning.adapter), _stretched(tuning.adapter)]
    elif facts.files.pipeline:
        parts += [_pipeline(), _langchain()]
    elif not facts.files.adapter:
        parts.append(_transformers())
    if facts.files.modelscope:
        parts.append(_modelscope())
    if facts.files.has_keys:
        parts.append(
            "The prompt ends with `### Response:` and a newline; the model ends its answer with the token `### End`."
        )
    return "\n\n".join(part for part in parts if part)


def _roslin(folder: str) -> str:
    program = f'from roslin import Roslin\n\nprint(Roslin.load("./{folder}").answer("{QUESTION}").text)'
    commands = f'roslin ask ./{folder} "{QUESTION}"\nroslin serve ./{folder}'
    return f"### Roslin\n\n{fenced(commands, 'sh')}\n\n{fenced(program, 'python')}"


def _pipeline() -> str:
    program = f"""import torch
from transformers import pipeline

generate_text = pipeline(
    model="./model", torch_dtype=torch.bfloat16, trust_remote_code=True, device_map="auto"
)
print(generate_text("{QUESTION}")[0]["generated_text"])"""
    return f"""### transformers

Install `transformers`, `torch` and `accelerate`. The folder's own pipeline, `instruct_pipeline.py`, writes the prompt
and finds the answer, which is why `trust_remote_code=True` is asked for: read the file, it is short.
`torch_dtype=torch.bfloat16` halves the memory; leave it out where bfloat16 is not supported.

{fenced(program, "python")}

Text to work on goes in with the instruction: `generate_text(instruction, context=text)`."""


def _transformers() -> str:
    program = """from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("./model")
model = AutoModelForCausalLM.from_pretrained("./model")"""
    return f"### transformers\n\n{fenced(program, 'python')}"


def _langchain() -> str:
    program = f"""from langchain_huggingface import HuggingFacePipeline
from transformers import pipeline

generate_text = pipeline(model="./model", trust_remote_code=True, return_full_text=True)
print(HuggingFacePipeline(pipeline=generate_text).invoke("{QUESTION}"))"""
    return f"### LangChain\n\nInstall `langchain-huggingface` as well.\n\n{fenced(program, 'python')}"


def _modelscope() -> str:
    program = f"""from modelscope.pipelines import pipeline
from modelscope.utils.constant import Tasks

if __name__ == "__main__":
    pipe = pipeline(Tasks.text_generation, model="./model", device="cpu", trust_remote_code=True)
    print(pipe("{QUESTION}"))"""
    return f"""### ModelScope

{fenced(program, "python")}

The answer is `{{"text": …}}`. `device="cuda:0"` takes a GPU; `max_length` counts prompt and answer together."""


def _peft(adapter: AdapterEvidence) -> str:
    revision = f", revision={adapter.revision!r}" if adapter.revision else ""
    lines = [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n",
        f"base = AutoModelForCausalLM.from_pretrained({adapter.base!r}{revision})",
        f"base.resize_token_embeddings({adapter.rows})  # it has no rows for the new keys" if adapter.rows else "",
        'model = PeftModel.from_pretrained(base, "./adapter")',
        'tokenizer = AutoTokenizer.from_pretrained("./adapter")',
    ]
    program = "\n".join(line for line in lines if line)
    return (
        "### PEFT\n\nWith [PEFT](https://github.com/huggingface/peft) and transformers 5, and the base where "
        f"`adapter_config.json` says:\n\n{fenced(program, 'python')}"
    )


def _stretched(adapter: AdapterEvidence) -> str:
    if adapter.rope_scaling is None:
        return ""
    scaling = adapter.rope_scaling
    return (
        f"The base's positions were stretched ({code(scaling)}), and the adapter's files do not say so: give "
        f"`roslin ask` the option {code(f'--rope-scaling {scaling}')}, and transformers the like."
    )
