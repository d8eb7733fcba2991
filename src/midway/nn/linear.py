"""Linear layers: torch's, but for float32 on a CPU through oneDNN."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(
    x: Float[Tensor, "*batch dim_in"],
    weight: Float[Tensor, "dim_out dim_in"],
    bias: Float[Tensor, " dim_out"] | None = None,
) -> Float[Tensor, "*batch dim_out"]:
    """What `torch.nn.functional.linear` gives, differently rounded in float32 on a CPU.

    There torch multiplies by MKL, which on AMD's processors leaves the wide vector units idle:
    oneDNN, which it takes for bfloat16 alone, is twice as fast, forward and backward.
    """
    if _is_plain_float32_on_cpu(x):
        return _OneDnnLinear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, input: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Weights times input, plus bias."""
        return linear(input, self.weight, self.bias)


class _OneDnnLinear(torch.autograd.Function):
    """The three matrix products of a linear layer, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)
        return (
            _product(grad, weight.t()) if wants_x else None,
            _transposed_product(rows, x.flatten(0, -2)) if wants_weight else None,
            rows.sum(0) if wants_bias else None,
        )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _transposed_product(a: Tensor, b: Tensor) -> Tensor:
    """a^T b, or the transpose of b^T a where that turns round less memory.

    The operation first copies its left factor into rows, and the result may have to be copied, too.
    """
    if b.numel() + a.shape[1] * b.shape[1] < a.numel():
        return _product(b.t(), a.t()).t()
    return _product(a.t(), b.t())


def _is_plain_float32_on_cpu(x: Tensor) -> bool:
    """Whether the product is of float32 on a CPU, and nothing watches the operations.

    Autocast, `torch.func` and compilers know `linear`, but not this function.
    """
    return (
        _ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.ndim >= 2
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
    )
