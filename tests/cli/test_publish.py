"""`roslin publish` as people and scripts run it, against a hub on this machine."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fake_hub_uploads import TOKEN, HubSite, fake_hub_uploads
from publishable import publishable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, base_folder: Path) -> Path:
    return publishable(tmp_path_factory.mktemp("made"), base_folder)


@pytest.fixture
def site() -> Iterator[HubSite]:
    with fake_hub_uploads() as site:
        yield site


def roslin(site: HubSite, home: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": site.address, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "roslin", "publish", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, **settings, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.full
def test_a_dry_run_then_the_real_one_then_nothing(site: HubSite, made: Path, tmp_path: Path) -> None:
    dry = roslin(site, tmp_path, str(made), "ada/tiny", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "config.json" in dry.stdout and " new" in dry.stdout and "licence: apache-2.0" in dry.stdout
    assert "visibility: private" in dry.stdout and dry.stdout.endswith("Nothing was sent.\n")
    assert site.writes == []
    real = roslin(site, tmp_path, str(made), "ada/tiny", "--tag", "v1", "-m", "Hello")
    assert real.returncode == 0, real.stderr
    assert real.stdout.splitlines()[-1] == f"{site.address}/ada/tiny"
    assert "Making ada/tiny on the Hugging Face hub, private" in real.stderr
    assert site.repos["ada/tiny"].commits[0][1] == "Hello" and "v1" in site.repos["ada/tiny"].tags
    again = roslin(site, tmp_path, str(made), "ada/tiny", "--json")
    told = json.loads(again.stdout)
    assert told["sent"] == [] and told["visibility"] == "private" and told["exists"] is True
    assert {file["change"] for file in told["files"]} == {"unchanged"}
    assert not any(TOKEN in text for done in (dry, real, again) for text in (done.stdout, done.stderr))


def test_what_is_refused_is_refused_before_the_hub_hears_of_it(site: HubSite, made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "model"))
    (folder / ".env").write_text("X=1")
    (folder / "run.sh").write_text("cd /home/ada/models\n")
    done = roslin(site, tmp_path, str(folder), "ada/tiny")
    assert done.returncode == 1 and done.stdout == ""
    assert "  .env: a file of credentials" in done.stderr and "  run.sh:1: a path of this machine" in done.stderr
    assert "Traceback" not in done.stderr
    assert site.asked == []
