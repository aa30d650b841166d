"""Facts about the machine's software, where a package is not installed."""

from importlib.metadata import PackageNotFoundError

import pytest

import roslin
from roslin.workflows import machine_facts


def test_a_source_tree_that_is_not_installed_knows_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine_facts, "version", nowhere)
    found = machine_facts.packages()
    assert found["roslin"] == roslin.__version__
    assert found["transformers"] is None
