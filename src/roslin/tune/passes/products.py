"""Matrix products of a pass: what takes their place in another precision keeps to the same four operations."""

from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Products(Protocol):
    """The products of a linear layer, forward and backward. N tokens, D numbers in, O numbers out."""

    def operand(self, x_ND: Tensor) -> Any:
        """A tensor made ready to be multiplied, as often as wanted."""
        ...

    def forward(self, x: Any, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
        """x @ weight.T + bias, [N, O]; `x` is an operand."""
        ...

    def grad_input(self, grad: Any, weight_OD: Tensor) -> Tensor:
        """Gradient of the input, grad @ weight, [N, D]; `grad` is an operand."""
        ...

    def grad_weight(self, grad: Any, x: Any, into_OD: Tensor | None) -> Tensor:
        """Gradient of the weight, grad.T @ x, [O, D], added to `into` in place where that is given; both operands."""
        ...


class PlainProducts:
    """Products in the dtype of the tensors, summed in fp32 where that is a half one."""

    def operand(self, x_ND: Tensor) -> Tensor:
        """The tensor itself."""
        return x_ND

    def forward(self, x_ND: Tensor, weight_OD: Tensor, bias_O: Tensor | None) -> Tensor:
        """x @ weight.T + bias."""
        return F.linear(x_ND, weight_OD, bias_O)

    def grad_input(self, grad_NO: Tensor, weight_OD: Tensor) -> Tensor:
        """grad @ weight."""
        return grad_NO @ weight_OD

    def grad_weight(self, grad_NO: Tensor, x_ND: Tensor, into_OD: Tensor | None) -> Tensor:
        """grad.T @ x; `into` is read and written by the product itself, so adding costs no pass of its own."""
        if into_OD is None:
            return torch.mm(grad_NO.T, x_ND)
        return into_OD.addmm_(grad_NO.T, x_ND)
