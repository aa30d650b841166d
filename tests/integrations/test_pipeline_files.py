"""What a written model folder holds for transformers, and folders as databricks laid them out."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from roslin import Roslin
from roslin.errors import InputError
from roslin.integrations import add_pipelines
from roslin.integrations.instruct_pipeline import InstructionTextGenerationPipeline
from roslin.model import load_decoder
from roslin.tokens import Tokenizer
from roslin.workflows.model_folder import write_model_folder
from weight_folders import as_bin

OLD_PIPELINE = """\
from transformers import Pipeline
from transformers.utils import is_tf_available

raise SystemExit("the code of a model's folder was run")
"""


def test_a_written_model_folder_has_the_file_and_names_it(base_folder: Path, tmp_path: Path) -> None:
    tokenizer, decoder = Tokenizer.load(base_folder), load_decoder(base_folder)
    seen: list[list[str]] = []
    write_model_folder(
        tmp_path / "model",
        decoder,
        tokenizer,
        dtype=torch.bfloat16,
        base=base_folder,
        finish=lambda partial: seen.append(sorted(path.name for path in partial.iterdir())),
    )
    assert "instruct_pipeline.py" in seen[0]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["model_type"] == "gpt_neox"
    [entry] = config["custom_pipelines"].values()
    module, name = entry["impl"].split(".")
    assert name == InstructionTextGenerationPipeline.__name__
    compile((tmp_path / "model" / f"{module}.py").read_text(encoding="utf-8"), module, "exec")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json: not readable"):
        add_pipelines(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="must hold one JSON object"):
        add_pipelines(tmp_path)
    assert not (tmp_path / "instruct_pipeline.py").exists()


def test_merges_are_written_as_older_tokenizers_read_them(folder: Path) -> None:
    merges = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["merges"]
    assert merges and all(isinstance(merge, str) and merge.count(" ") == 1 for merge in merges)


def test_databricks_own_layout_loads_and_its_code_is_not_run(folder: Path, tmp_path: Path) -> None:
    """As the hub has dolly-v2: one .bin, settings of transformers 4, a pipeline file that breaks on transformers 5."""
    old = tmp_path / "dolly-v2"
    shutil.copytree(folder, old)
    as_bin(old)
    (old / "generation_config.json").unlink()
    (old / "instruct_pipeline.py").write_text(OLD_PIPELINE)
    config = json.loads((old / "config.json").read_text())
    config |= {"transformers_version": "4.25.1", "use_cache": True, "torch_dtype": "bfloat16", "hidden_dropout": 0.0}
    config["custom_pipelines"]["text-generation"]["tf"] = "TFAutoModelForCausalLM"
    (old / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = Roslin.load(str(old), dtype="float32")
    asked = "What is rain, and why does it fall?"
    answer = loaded.answer(asked, greedy=True, max_new_tokens=10)
    assert answer.text == Roslin.load(str(folder)).answer(asked, greedy=True, max_new_tokens=10).text != ""
