"""What of a machine and its software can change a run's numbers, as plain values."""

import hashlib
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import roslin

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "tokenizers",
    "safetensors",
    "numpy",
    "pyarrow",
    "datasets",
    "bitsandbytes",
)
VARIABLES = re.compile(
    r"(?!PYTORCH_(CUDA_)?ALLOC_CONF)"
    r"(CUBLAS|CUDA|CUDNN|NCCL|GLOO|TORCH|PYTORCH|TRITON|OMP|MKL|OPENBLAS|DNNL|ONEDNN|ATEN)_\w+|NVIDIA_TF32_OVERRIDE"
)
"""Environment variables that choose kernels, their order of summation or their precision. How torch cuts up memory
changes no number."""


def machine() -> dict[str, Any]:
    """Hardware and system."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())],
        "driver": _driver(),
    }


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()


def _driver() -> str | None:
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"\b\d+\.\d+(\.\d+)?\b", text)
    return found[0] if found else None


def packages() -> dict[str, str | None]:
    """Versions of Python, CUDA, cuDNN and the packages that compute, None where there is none."""
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None  # type: ignore[no-untyped-call]
    found: dict[str, str | None] = {
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
        "roslin": roslin.__version__,  # known in a source tree that is not installed, too
    }
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def numerics() -> dict[str, Any]:
    """Torch's settings that change how it computes."""
    return {
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "bf16_reduced_reduction": torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def environment() -> dict[str, str]:
    """Environment variables that choose kernels, threads or precision."""
    return {name: value for name, value in sorted(os.environ.items()) if VARIABLES.fullmatch(name)}


def code() -> dict[str, Any]:
    """Which Roslin this is: a hash of its sources, kernels among them, and the commit if it runs from a checkout."""
    folder = Path(roslin.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode() + path.read_bytes())
    found: dict[str, Any] = {"sha256": digest.hexdigest(), "commit": None, "changed": None}
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py"):  # else the checkout around it is somebody else's
        found["commit"] = _git(folder, "rev-parse", "HEAD")
        found["changed"] = bool(_git(folder, "status", "--porcelain", "--", str(folder)))
    return found


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
