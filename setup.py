"""The one thing that pyproject.toml cannot say: how the C++ kernels for the CPU are built.

They are one shared library without Python in it (src/roslin/engine/cpu), which is left out where it cannot be built.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("src/roslin/engine/cpu")
UNIX = ["-std=c++17", "-O3", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra"]
FLAGS = ["/std:c++17", "/O2"] if sys.platform == "win32" else UNIX


class BuildKernels(build_ext):
    """Builds a library for ctypes: neither for one version of Python nor with an entry point for it."""

    def get_ext_filename(self, fullname: str) -> str:
        """Where the library goes, whatever Python builds it."""
        return str(Path(*fullname.split("."))) + (".dll" if sys.platform == "win32" else ".so")

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None: the source marks what is for others."""
        return []


class KernelsWheel(bdist_wheel):
    """A wheel for this platform and for every Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """The wheel's tag."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[
        Extension(
            "roslin.engine.cpu._kernels",
            sources=sorted(str(path) for path in FOLDER.glob("*.cpp")),
            depends=sorted(str(path) for kind in ("*.h", "*.inl") for path in FOLDER.glob(kind)),
            language="c++",
            extra_compile_args=FLAGS,
            extra_link_args=[] if sys.platform == "win32" else ["-pthread"],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": KernelsWheel},
)
