"""What licences ask, and which well-known records have which."""

import hashlib
from importlib.resources import files

import pytest

from roslin.publish.energy import energy_of
from roslin.publish.licences import combined, effect_of, records_licence


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("apache-2.0", "free"),
        ("mit", "free"),
        ("cc0-1.0", "free"),
        ("cc-by-4.0", "free"),
        ("cc-by-sa-3.0", "share-alike"),
        ("CC-BY-SA-4.0", "share-alike"),
        ("cc-by-nc-4.0", "non-commercial"),
        ("cc-by-nc-sa-4.0", "non-commercial"),
        ("cc-by-nc-nd-4.0", "non-commercial"),
        ("cc-by-nd-4.0", "no-derivatives"),
        ("llama3.1", "conditions"),
        ("gemma", "conditions"),
        ("bigscience-openrail-m", "conditions"),
        ("other", "conditions"),
        ("my-own", "unknown"),
        (None, "unknown"),
    ],
)
def test_what_a_licence_asks(licence: str | None, kind: str) -> None:
    assert effect_of(licence).kind == kind


def test_a_licence_of_two_limits_names_both() -> None:
    assert effect_of("cc-by-nc-sa-4.0").asks.endswith("be passed on under the same licence only")
    assert "forbids passing on" in effect_of("cc-by-nc-nd-4.0").asks
    for licence in ("cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"):
        assert effect_of(licence).asks.startswith("forbids commercial use")


def test_well_known_records_are_known_by_hash_or_name() -> None:
    starter = (files("roslin") / "assets" / "records" / "starter.jsonl").read_bytes()
    assert records_licence("any.jsonl", hashlib.sha256(starter).hexdigest()) == "cc0-1.0"
    dolly = "2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec"
    assert records_licence("renamed.jsonl", dolly) == "cc-by-sa-3.0"
    assert records_licence("databricks/databricks-dolly-15k:train", None) == "cc-by-sa-3.0"
    assert records_licence("tatsu-lab/alpaca", None) == "cc-by-nc-4.0"
    assert records_licence("data/databricks-dolly-15k.jsonl", "00") == "cc-by-sa-3.0"
    assert records_licence("mine.jsonl", "00") is None


def test_share_alike_passes_into_its_later_version_only() -> None:
    assert combined("cc-by-sa-4.0", ["cc-by-sa-3.0"]) == "cc-by-sa-4.0"
    assert combined("cc-by-sa-3.0", ["cc-by-sa-4.0"]) is None
    assert combined("gpl-3.0", ["cc-by-sa-4.0"]) is None
    assert combined("cc-by-sa-4.0", ["cc-by-nc-4.0"]) is None
    assert combined("mit", []) is None


def test_energy_is_rated_power_times_time() -> None:
    found = energy_of(["NVIDIA A100-SXM4-40GB"] * 8, 3600)
    assert found is not None
    assert (found.watts, found.most, found.least) == (3200, 3.2, 1.6)
    assert energy_of(["NVIDIA A100-SXM4-40GB", "Unheard of"], 3600) is None
    assert energy_of([], 3600) is None
    watts = {
        "NVIDIA H100 80GB HBM3": 700,
        "NVIDIA H100 PCIe": 350,
        "Tesla V100-SXM2-16GB": 300,
        "Tesla T4": 70,
        "NVIDIA A10": 150,
        "NVIDIA A10G": 300,
        "NVIDIA L4": 72,
        "NVIDIA L40S": 350,
        "NVIDIA GeForce RTX 3090": 350,
        "NVIDIA GeForce RTX 3090 Ti": 450,
        "NVIDIA GeForce RTX 4090 Laptop GPU": None,
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb": None,
    }
    assert {name: getattr(energy_of([name], 1), "watts", None) for name in watts} == watts
