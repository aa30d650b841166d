"""What makes a model folder a pipeline of transformers and of ModelScope: two files, and the entries that name them."""

import shutil
from pathlib import Path
from typing import Any

import orjson

from roslin.errors import InputError

PIPELINE_FILES = ("instruct_pipeline.py", "ms_wrapper.py")
"""They stand alone: they ask with Dolly's prompt and need no Roslin."""

CUSTOM_PIPELINES = {
    "text-generation": {
        "impl": "instruct_pipeline.InstructionTextGenerationPipeline",
        "pt": "AutoModelForCausalLM",
    }
}
"""The entry of config.json by which `pipeline(model=FOLDER, trust_remote_code=True)` finds the class, as in Dolly's."""

MODELSCOPE_PIPELINE = "dolly-instruction"
"""The name under which ms_wrapper.py registers its class."""


def add_pipelines(folder: Path) -> None:
    """Put the pipelines' files into a model folder and name them in config.json and configuration.json (ModelScope's).

    Raises InputError where config.json is missing or is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Write the model into this folder first.") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: must hold one JSON object.")
    for name in PIPELINE_FILES:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    _write(path, config | {"custom_pipelines": CUSTOM_PIPELINES})
    _write(folder / "configuration.json", _configuration(config["model_type"]))


def _configuration(model_type: str) -> dict[str, Any]:
    """By it ModelScope finds task and class, and that the folder's code must be run (`allow_remote`)."""
    return {
        "framework": "pytorch",
        "task": "text-generation",
        "allow_remote": True,
        "model": {"type": model_type},
        "pipeline": {"type": MODELSCOPE_PIPELINE},
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_bytes(orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
