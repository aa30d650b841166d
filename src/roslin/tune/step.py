"""The gradients of one update, pass by pass."""

from collections.abc import Sequence

from roslin.model import Decoder
from roslin.tune.held_out import hidden_of_answers
from roslin.tune.loss import answer_loss
from roslin.tune.packing import Pack


def accumulate(decoder: Decoder, packs: Sequence[Pack]) -> float:
    """Add the gradients of an update's rows to the parameters; its loss in nats an answer token.

    Every row is scaled by the answer tokens of the whole update, so neither loss nor gradient depends on how its
    records are cut into rows.
    """
    scale = 1.0 / sum(pack.answer_count for pack in packs)
    total = 0.0
    for pack in packs:
        hidden_MD = hidden_of_answers(decoder, pack)
        target_M = pack.target_M.to(hidden_MD.device)
        loss = answer_loss(hidden_MD, decoder.head.weight, decoder.head.bias, target_M, scale)
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total
