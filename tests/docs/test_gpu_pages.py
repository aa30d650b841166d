"""The figures of the pages about GPUs are what `roslin plan` predicts."""

import pytest

from gpu_pages import FIGURES, PAGES, with_figures

GPUS = {"a10", "l4", "v100", "t4", "a100", "h100"}


@pytest.mark.full
def test_they_are_what_the_plan_predicts() -> None:
    """After a change to what is predicted: python tests/gpu_pages.py."""
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert with_figures(text) == text, page.name
        kinds = [found[0] for found in FIGURES.findall(text)]
        assert kinds == (
            ["tune", "answer"] if page.stem in GPUS else {"index": ["which"], "cpu": ["cpu"]}.get(page.stem, [])
        )


def test_every_kind_of_machine_has_its_page() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} == GPUS | {"index", "cpu", "mac"}
