"""`roslin models` as people and scripts run it."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from rich.console import Console

from hub_cache import fill
from roslin.cli.models import Device, caption, needs_of, show
from roslin.memory import answering, gib, tuning
from roslin.model.describe import KNOWN, describe
from roslin.model.published import PUBLISHED

HEADINGS = ("answer", "int4", "tune", "full", "LoRA", "QLoRA")


def roslin(*words: str, cache: Path) -> "subprocess.CompletedProcess[str]":
    """The command with a hub cache, and a proxy that refuses whoever would ask the network."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "roslin", "models", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **proxies, "HF_HUB_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
    )


def printed(width: int) -> str:
    out = io.StringIO()
    found = [needs_of(model, 2048, 1, "cuda") for model in describe(KNOWN)]
    show(found, caption(2048, 1, "cuda"), Console(file=out, width=width))
    return out.getvalue()


def test_all_known_models_are_listed(tmp_path: Path) -> None:
    fill(tmp_path, "EleutherAI/pythia-2.8b")
    shown = roslin(cache=tmp_path)
    assert shown.returncode == 0, shown.stderr
    lines = {line.split()[0]: line.split() for line in shown.stdout.splitlines() if line}
    assert lines.keys() >= {"base", *PUBLISHED}
    assert lines["EleutherAI/pythia-2.8b"][1:7] == ["gpt_neox", "apache-2.0", "2,048", "2.8", "B", "yes"]
    assert lines["EleutherAI/gpt-neox-20b"][1:7] == ["gpt_neox", "apache-2.0", "2,048", "20.6", "B", "no"]
    assert "its 50,403 rows follow" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(("width", "lines_each"), [(80, 2), (110, 1), (120, 1)])
def test_the_table_fits_the_terminal(width: int, lines_each: int) -> None:
    text = printed(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert all(name in text for name in KNOWN)
    assert all(heading in text for heading in HEADINGS)
    first, second = (next(i for i, line in enumerate(lines) if line.startswith(name)) for name in list(KNOWN)[2:4])
    assert second - first == lines_each
    [dolly] = [line.split() for line in lines if line.startswith("databricks/dolly-v2-12b")]
    config = PUBLISHED["databricks/dolly-v2-12b"].config
    needs = [answering(config, precision, 2048, 1) for precision in ("bf16", "int4")]
    needs += [tuning(config, method, 2048) for method in ("bf16", "lora", "qlora")]
    assert dolly[-5:] == [gib(each.total) for each in needs]
    assert "cc-by-nc-4.0" in text


@pytest.mark.full
def test_json_has_memory_by_part(tmp_path: Path) -> None:
    shown = roslin("EleutherAI/gpt-j-6B", "base", "--json", "--length", "512", "--batch", "4", cache=tmp_path)
    gptj, base = json.loads(shown.stdout)
    assert (gptj["architecture"], gptj["family"], gptj["licence"]) == ("GPTJForCausalLM", "gptj", "apache-2.0")
    assert (gptj["parameters"], gptj["positions"], gptj["vocab_rows"]) == (6_050_882_784, 2048, 50400)
    assert (gptj["here"], gptj["folder"], base["here"]) == ("no", None, "yes")
    config = PUBLISHED["EleutherAI/gpt-j-6B"].config
    wanted = answering(config, "int4", 512, 4)
    assert gptj["answering"]["int4"] == wanted.parts() | {"total": wanted.total}
    assert gptj["tuning"]["qlora"]["activations"] == tuning(config, "qlora", 512).activations
    assert gptj["answering"].keys() == {"fp32", "bf16", "int8", "int4"}
    assert gptj["tuning"].keys() == {"fp32", "bf16", "fp16", "lora", "qlora"}


def test_a_cpu_keeps_keys_and_values_in_as_many_bits_as_a_gpu() -> None:
    [base] = describe(["base"])
    gpu, cpu = (needs_of(base, 2048, 1, device).answering["bf16"].keys_and_values for device in get_args(Device))
    assert cpu == gpu > 0


def test_no_model_is_asked_for_more_than_its_positions() -> None:
    [base] = describe(["base"])
    assert needs_of(base, 10**6, 1, "cuda") == needs_of(base, 2048, 1, "cuda")


def test_names_that_are_no_models_end_with_1_and_are_all_told(tmp_path: Path) -> None:
    refused = roslin("owner/absent", "./none", cache=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "owner/absent" in refused.stderr
    assert "./none" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert roslin("--length", "0", cache=tmp_path).returncode == 2
