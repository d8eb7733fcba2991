"""Linear layers: those of torch, but through oneDNN for float32 on a CPU."""

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
    """Return `torch.nn.functional.linear`, with other rounding in float32 on a CPU."""
    # For float32 torch calls MKL, which does not use the wide vector units of AMD's processors.
    # oneDNN, which torch calls for bfloat16 only, is twice as fast there, forward and backward.
    if _is_plain_float32_on_cpu(x):
        return _OneDnnLinear.apply(x, weight, bias)  # pyright: ignore[reportReturnType]
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`torch.nn.Linear` computed by `linear`."""

    def forward(self, input: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Return weight times input, plus bias."""
        return linear(input, self.weight, self.bias)


class _OneDnnLinear(torch.autograd.Function):
    """Linear layer with its three matrix products by oneDNN, forward and backward."""

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
    """Return a^T b, computed as (b^T a)^T where that copies less memory."""
    # oneDNN first copies the transposed left factor; the transposed result may be copied later.
    if b.numel() + a.shape[1] * b.shape[1] < a.numel():
        return _product(b.t(), a.t()).t()
    return _product(a.t(), b.t())


def _is_plain_float32_on_cpu(x: Tensor) -> bool:
    """Return whether `x` is float32 on a CPU, without autocast, `torch.func` or a compiler."""
    # These three transform torch's linear, but do not support this autograd function.
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
