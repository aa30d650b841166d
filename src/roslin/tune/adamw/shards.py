"""What of a parameter this process holds: all of it, or the rows that FSDP left here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class Together:
    """Parameters that are cut up among the same processes."""

    names: list[str]
    groups: list[Any]
    """The process groups that their squares are summed over, one after the other; none where nothing is cut up."""

    def square_of_norm(self, norms: Mapping[str, Tensor], device: torch.device) -> Tensor:
        """fp64 sum of squares over all processes' gradients; every process must ask."""
        mine = [norms[name] for name in self.names if name in norms]
        total = (
            torch.stack(mine).double().square().sum() if mine else torch.zeros((), dtype=torch.float64, device=device)
        )
        for group in self.groups:
            dist.all_reduce(total, group=group)
        return total


def here(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that may be a DTensor; changes to it are changes to the whole."""
    part: Tensor = tensor.detach().to_local() if _is_sharded(tensor) else tensor.detach()  # type: ignore[attr-defined]
    return part


def part_of(parameter: Tensor, part: Tensor) -> Tensor:
    """What goes with this process's rows of a parameter, as its part of a tensor that is cut up as the parameter is."""
    if not _is_sharded(parameter):
        return part
    from torch.distributed.tensor import DTensor

    whole: Any = parameter
    shape = torch.Size((len(parameter), *part.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(part, whole.device_mesh, whole.placements, run_check=False, shape=shape, stride=stride)


def as_parts(parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors called as their parameter is, or `PARAMETER/what`, as parts of whole ones; others as they are."""
    of = {key: parameters.get(key.partition("/")[0]) for key in tensors}
    return {
        key: tensor if (parameter := of[key]) is None else part_of(parameter, tensor) for key, tensor in tensors.items()
    }


def first_row(parameter: Tensor) -> int:
    """Which row of the whole parameter is the first that lies here."""
    if not _is_sharded(parameter):
        return 0
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    sharded: Any = parameter
    _, offset = compute_local_shape_and_global_offset(sharded.shape, sharded.device_mesh, sharded.placements)
    return offset[0] if offset else 0


def together(parameters: Iterable[tuple[str, Tensor]]) -> list[Together]:
    """Parameters by what their norms are summed over, in an order that is every process's."""
    found: dict[Any, Together] = {}
    for name, parameter in parameters:
        sharded: Any = parameter
        mesh = sharded.device_mesh if _is_sharded(parameter) else None
        dims = [dim for dim, placement in enumerate(sharded.placements) if placement.is_shard()] if mesh else []
        key = (mesh, *dims) if dims else None
        if key not in found:
            found[key] = Together([], [mesh.get_group(dim) for dim in dims] if mesh else [])
        found[key].names.append(name)
    return list(found.values())


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "placements")  # DTensor's own import takes as long as all the rest
