"""The table of GPUs."""

import pytest

from roslin.cli.plan import GpuName
from roslin.memory import GPUS, known_gpu


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-PCIE-40GB", "a100"),
        ("NVIDIA A10", "a10"),
        ("NVIDIA L4", "l4"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla T4", "t4"),
        ("NVIDIA B200", "b200"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
    ],
)
def test_devices_are_known_by_the_names_that_they_give_themselves(device: str, name: str) -> None:
    assert known_gpu(device) == GPUS[name]


@pytest.mark.parametrize("device", ["NVIDIA H100 PCIe", "NVIDIA A10G", "NVIDIA L40S", "NVIDIA GeForce RTX 3090"])
def test_others_are_not_taken_for_them(device: str) -> None:
    assert known_gpu(device) is None


def test_the_command_offers_every_gpu_of_the_table() -> None:
    assert [name.value for name in GpuName] == list(GPUS)


def test_which_lack_what() -> None:
    assert {name for name, gpu in GPUS.items() if not gpu.bf16} == {"t4", "v100", "v100-32"}
    assert {name for name, gpu in GPUS.items() if gpu.fp8} == {"l4", "rtx-4090", "h100", "h200", "b200"}
    assert all(gpu.fp32_flops < gpu.flops for gpu in GPUS.values())
