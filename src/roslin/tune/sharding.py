"""A decoder in shards: every process keeps a part of each parameter, and has the whole of a layer while it works on it.

This is torch's FSDP2. The blocks are gathered one at a time; embedding, final norm and head stay gathered from the
start of a forward pass to the end of its backward pass, for the loss takes the head's matrix in its own hands.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from roslin.errors import InputError
from roslin.model import Decoder
from roslin.tune.recipe import Sharding


def make_mesh(sharding: Sharding, device: torch.device, count: int) -> DeviceMesh:
    """The processes as a line of shards, or as `replicas` such lines. Raises InputError where they do not come out."""
    replicas = sharding.replicas or 1
    if count % replicas:
        raise InputError(f"sharding.replicas is {replicas}, and {count} processes are no multiple of it.")
    if replicas == 1:
        return init_device_mesh(device.type, (count,), mesh_dim_names=("shard",))
    return init_device_mesh(device.type, (replicas, count // replicas), mesh_dim_names=("replica", "shard"))


def shard(decoder: Decoder, mesh: DeviceMesh, *, offload: bool, on_pass: Callable[[], None]) -> None:
    """Cut a decoder's parameters into shards, in place; `on_pass` is called at the start of every forward pass.

    Gradients are added up over the processes, not averaged: each scales its loss by the whole update's answer tokens.
    They cross in fp32.
    """
    precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    elsewhere = CPUOffloadPolicy() if offload else OffloadPolicy()
    for block in decoder.blocks:
        fully_shard(block, mesh=mesh, mp_policy=precision, offload_policy=elsewhere)
    fully_shard(decoder, mesh=mesh, mp_policy=precision, offload_policy=elsewhere, reshard_after_forward=False)
    register_fsdp_forward_method(decoder, "hidden")
    decoder.blocks[0].register_forward_pre_hook(lambda *_: on_pass())
    for module in decoder.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)


def gathered(decoder: Decoder, part_to_keep: Callable[[str], Tensor], *, keep: bool) -> Decoder | None:
    """A plain decoder on the CPU of the parts that `part_to_keep` gives for each parameter, where `keep`; else None.

    All processes must call this. One parameter at a time is whole where it is not kept.
    """
    with torch.device("meta"):
        plain = Decoder(decoder.config)
    for name, _ in decoder.named_parameters():
        part = part_to_keep(name)
        whole = part.full_tensor() if isinstance(part, DTensor) else part
        if keep:
            path, _, attribute = name.rpartition(".")
            setattr(plain.get_submodule(path), attribute, nn.Parameter(whole.cpu()))
    plain.tie()
    return plain if keep else None
