"""What makes a model folder an instruction pipeline of transformers: its file, and the entry that names it."""

import shutil
from pathlib import Path

import orjson

from roslin.errors import InputError

PIPELINE_FILE = "instruct_pipeline.py"
CUSTOM_PIPELINES = {
    "text-generation": {
        "impl": "instruct_pipeline.InstructionTextGenerationPipeline",
        "pt": "AutoModelForCausalLM",
    }
}
"""The entry of config.json by which `pipeline(model=FOLDER, trust_remote_code=True)` finds the class, as in Dolly's."""


def add_pipeline(folder: Path) -> None:
    """Put the pipeline's file into a model folder and name it in the folder's config.json.

    The file stands alone: it asks with Dolly's prompt and needs no Roslin. Raises InputError where config.json is
    missing or is no JSON object.
    """
    path = folder / "config.json"
    try:
        config = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Write the model into this folder first.") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: must hold one JSON object.")
    shutil.copyfile(Path(__file__).with_name(PIPELINE_FILE), folder / PIPELINE_FILE)
    config["custom_pipelines"] = CUSTOM_PIPELINES
    path.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
