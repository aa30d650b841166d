"""As much of modelscope as a model folder's wrapper touches, for tests that run without the package."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

REGISTERED: dict[tuple[str, str], type] = {}


class Pipeline:
    """The base class: it places the model that it is given."""

    def __init__(self, *, model: Any, preprocessor: Any, device: str, device_map: Any, auto_collate: bool) -> None:
        assert model.model_dir and preprocessor is not None and not auto_collate
        self.model = model
        self.device = torch.device("cpu" if device == "gpu" else device)


class Registry:
    """Classes by task and name; a name that is taken needs force."""

    def register_module(self, task: str, module_name: str, force: bool = False) -> Callable[[type], type]:
        def register(found: type) -> type:
            assert force or (task, module_name) not in REGISTERED
            REGISTERED[task, module_name] = found
            return found

        return register


def install(patch: pytest.MonkeyPatch) -> None:
    """Let `import modelscope…` find the stand-in."""
    contents: dict[str, dict[str, Any]] = {
        "modelscope": {},
        "modelscope.pipelines": {},
        "modelscope.pipelines.base": {"Pipeline": Pipeline},
        "modelscope.pipelines.builder": {"PIPELINES": Registry()},
        "modelscope.utils": {},
        "modelscope.utils.constant": {"Tasks": type("Tasks", (), {"text_generation": "text-generation"})},
    }
    for name, values in contents.items():
        module = ModuleType(name)
        vars(module).update(values)
        patch.setitem(sys.modules, name, module)
