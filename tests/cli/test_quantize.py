import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from roslin import Roslin
from roslin.cli.main import app
from roslin.errors import InputError, MachineError
from roslin.model import find_model, save
from roslin.publish.quantise import quantise_model


@pytest.mark.parametrize(("form", "off"), [("int8", 0.02), ("fp8", 0.05)])
def test_a_quantised_model_answers_without_the_original(form: str, off: float, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(find_model("base"), source)
    done = CliRunner().invoke(app, ["quantize", str(source), str(out), "--format", form, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["format"] == form
    assert told["bytes"] == sum(file.stat().st_size for file in out.glob("*.safetensors")) < 0.6 * told["source_bytes"]
    shutil.rmtree(source)
    with pytest.warns(UserWarning, match="not tuned"):
        packed, plain = Roslin.load(str(out), device="cpu"), Roslin.load("base", device="cpu")
    assert packed.answer("Name a river.", max_new_tokens=5).text is not None
    found, expected = (model.score("Name a river.", "The Rhine.").loss for model in (packed, plain))
    assert found == pytest.approx(expected, rel=off)


def test_what_cannot_be_quantised_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "out"
    quantise_model("base", out, "int8")
    with pytest.raises(InputError, match="quantised already"):
        quantise_model(str(out), tmp_path / "again", "int8")
    with pytest.raises(InputError, match="is there already"):
        quantise_model("base", out, "int8")
    with pytest.raises(InputError, match="group of 48"):
        quantise_model("base", tmp_path / "again", "int4", group=48)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "base", "peft_type": "LORA"}))
    with pytest.raises(InputError):
        quantise_model(str(adapter), tmp_path / "again", "int8")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "out"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full(file: object, tensor: object) -> None:
        written.append(tensor)
        if len(written) > 5:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(save, "write_tensor", full)
    with pytest.raises(MachineError, match="disk is full"):
        quantise_model("base", tmp_path / "out", "int8")
    assert list(tmp_path.iterdir()) == []
