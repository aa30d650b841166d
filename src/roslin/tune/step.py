"""The gradients of one update, pass by pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from roslin.model import Decoder
from roslin.model.token_rows import RowsHead
from roslin.tune.held_out import hidden_of_answers
from roslin.tune.loss import TaughtRows, answer_loss
from roslin.tune.packing import Pack


def accumulate(decoder: Decoder, packs: Sequence[Pack], answers: int | None = None, loss_scale: float = 1.0) -> Tensor:
    """Add the gradients of an update's rows to the parameters; its loss in nats an answer token, not waited for.

    Every row is scaled by the answer tokens of the whole update, so neither loss nor gradient depends on how its
    records are cut into rows. `answers` says how many those are where other processes work on other rows of it.
    Gradients, and not the loss, are `loss_scale` times what they are.
    """
    scale = loss_scale / (answers or sum(pack.answer_count for pack in packs))
    losses: list[Tensor] = []
    for pack in packs:
        hidden_MD = hidden_of_answers(decoder, pack)
        target_M = pack.target_M.to(hidden_MD.device)
        head = decoder.head
        loss = answer_loss(hidden_MD, head.weight, head.bias, target_M, scale, _taught_rows(head))
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return torch.stack(losses).sum() / loss_scale


def _taught_rows(head: nn.Module) -> TaughtRows | None:
    return TaughtRows(head.ids_K, head.rows_KD, head.biases_K) if isinstance(head, RowsHead) else None


@contextmanager
def dropout(decoder: Decoder, seed: int) -> Iterator[None]:
    """Let an adapter drop inputs, drawn from `seed` alone; torch's own stream of numbers stays where it was."""
    devices = [decoder.device] if decoder.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        decoder.train()
        try:
            yield
        finally:
            decoder.eval()


def draw_seed(seed: int, update: int, rank: int = 0) -> int:
    """torch's seed for an update, from its number and the run's seed of any size; update 0 is the start of the run.

    Every process of a run draws its own.
    """
    entropy = [seed, update, rank] if rank else [seed, update]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
