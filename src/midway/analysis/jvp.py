"""Forward-mode differentiation of a forward model, for tangents that enter at a single token.

Written out: what does not depend on the perturbation is computed once and shared by all of them,
and in the first block most of the rest is zero. Torch's own derivatives know neither, pass over
memory more often, and have no rule for fused attention.

Shapes: P perturbations, T tokens of width D, H heads of width d. `rows` picks the tokens that
tangents belong to: all of them, tangents being (P, T, D), or one for each perturbation, (P, D).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from midway.models.dynamics import ForwardDynamics
from midway.nn.blocks import Attention, Gate, GatedBlock, Mlp

Primal = Float[Tensor, "tokens dim"]
Tangents = Float[Tensor, "*perturbations_tokens dim"]
Rows = Int[Tensor, " perturbations"] | slice
ALL = slice(None)


class ForwardTangents:
    """Derivative of a forward model at one input, for perturbations of single features.

    Args:
        model: The forward model.
        features: Backward features v of one source.
        latents: Its motion latents at the encoder's width, held fixed.
        dtype: Of the tangents; the input itself goes through in its own.

    """

    def __init__(
        self,
        model: ForwardDynamics,
        features: Primal,
        latents: Float[Tensor, "latents dim"],
        *,
        dtype: torch.dtype,
    ) -> None:
        self.dtype, self.num_latents = dtype, len(latents)
        self.reads_previous = model.gate_input == "previous"
        x = x_before = torch.cat([latents, features])
        self.blocks: list[_Block] = []
        self.gates: list[_Gate | None] = []
        for index, block in enumerate(model.blocks):
            assert isinstance(block, GatedBlock)
            module = model.gates[index - 1] if index and model.gates else None
            gate, residual = None, x
            if isinstance(module, Gate):
                read = x_before if self.reads_previous else x
                gate = _Gate(module, read, x, len(latents), dtype)
                residual = gate.residual
            self.gates.append(gate)
            self.blocks.append(_Block(block, x, residual, dtype))
            x_before, x = x, self.blocks[-1].output

    def push(
        self,
        places: Int[Tensor, " perturbations"],
        directions: Float[Tensor, "perturbations dim"],
    ) -> Float[Tensor, "perturbations features dim"]:
        """How the predicted features move when one feature moves along a direction.

        Args:
            places: Of the feature, 0 being the class token.
            directions: One a perturbation.

        """
        entering, places = directions.to(self.dtype), places + self.num_latents
        each = torch.arange(len(places), device=places.device)
        dx_before = None
        dx = self.blocks[0].push_one(entering, places)
        for block, gate in zip(self.blocks[1:], self.gates[1:], strict=True):
            residual = dx
            if gate is not None and self.reads_previous and dx_before is None:
                residual = gate.weight * dx
                residual[each, places] += gate.push(entering, places)
            elif gate is not None:
                read = dx_before if self.reads_previous and dx_before is not None else dx
                residual = (gate.weight * dx).add_(gate.push(read))
            dx_before, dx = dx, block.push(dx, residual)
        return dx[:, self.num_latents :]


class _Block:
    """h = residual + attention(norm(x)); h + mlp(norm(h))."""

    def __init__(self, block: GatedBlock, x: Primal, residual: Primal, dtype: torch.dtype) -> None:
        self.norm1 = _Norm(block.norm1, x, dtype)
        self.attn = _Attention(block.attn, block.norm1(x), dtype)
        h = residual + block.attn(block.norm1(x)[None])[0]
        self.norm2 = _Norm(block.norm2, h, dtype)
        self.mlp = _Mlp(block.mlp, block.norm2(h), dtype)
        self.output = h + block.mlp(block.norm2(h))

    def push(self, dx: Tangents, residual: Tangents) -> Tangents:
        dh = self.attn.push(self.norm1.push(dx)).add_(residual)
        return self.mlp.push(self.norm2.push(dh)).add_(dh)

    def push_one(self, dx: Tangents, places: Tensor) -> Tangents:
        dh = self.attn.push_one(self.norm1.push(dx, places), places)
        dh[torch.arange(len(dx), device=dx.device), places] += dx
        return self.mlp.push(self.norm2.push(dh)).add_(dh)


class _Norm:
    """y = weight * unit + bias, with unit = (x - mean) / deviation.

    d unit = (dx - mean(dx) - unit * mean(unit * dx)) / deviation.
    """

    def __init__(self, norm: nn.LayerNorm, x: Primal, dtype: torch.dtype) -> None:
        deviation = (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        self.unit = ((x - x.mean(-1, keepdim=True)) / deviation).to(dtype)
        self.gain = (norm.weight / deviation).to(dtype)

    def push(self, dx: Tangents, rows: Rows = ALL) -> Tangents:
        unit = self.unit[rows]
        along = (unit * dx).mean(-1, keepdim=True)
        return (
            (dx - dx.mean(-1, keepdim=True)).addcmul_(unit, along, value=-1).mul_(self.gain[rows])
        )


class _Mlp:
    """y = fc2(gelu(a)) with a = fc1(x); dy = fc2(gelu'(a) * fc1(dx)), both without their biases."""

    def __init__(self, mlp: Mlp, x: Primal, dtype: torch.dtype) -> None:
        a = mlp.fc1(x)
        density = (-0.5 * a.square()).exp() / (2 * torch.pi) ** 0.5
        self.slope = (0.5 * (1 + torch.erf(a / 2**0.5)) + a * density).to(dtype)
        self.fc1, self.fc2 = mlp.fc1.weight.to(dtype), mlp.fc2.weight.to(dtype)

    def push(self, dx: Tangents, rows: Rows = ALL) -> Tangents:
        return F.linear(F.linear(dx, self.fc1).mul_(self.slope[rows]), self.fc2)


class _Gate:
    """residual = g * x with g = sigmoid(mlp(norm(read)) + bias); that of latents is 1."""

    def __init__(
        self, gate: Gate, read: Primal, x: Primal, num_latents: int, dtype: torch.dtype
    ) -> None:
        self.norm, self.mlp = _Norm(gate.norm, read, dtype), _Mlp(gate.mlp, gate.norm(read), dtype)
        g = gate(read)
        slope = g * (1 - g) * x
        g[:num_latents], slope[:num_latents] = 1, 0
        self.residual = g * x
        self.weight, self.slope = g.to(dtype), slope.to(dtype)

    def push(self, dread: Tangents, rows: Rows = ALL) -> Tangents:
        """Change of the residual that the change of the gate makes: dg * x."""
        return self.mlp.push(self.norm.push(dread, rows), rows).mul_(self.slope[rows])


class _Attention:
    """y = proj(weights v) with weights = softmax(q k), q being scaled.

    d weights = t - weights * sum(t) with t = weights * (dq k + q dk), sums going over keys.
    """

    def __init__(self, attn: Attention, x: Primal, dtype: torch.dtype) -> None:
        self.heads = attn.heads
        q, k, v = self._split(attn.qkv(x))
        self.scale = q.shape[-1] ** -0.5
        q = q * self.scale
        weights = (q @ k.mT).softmax(-1)
        self.mixed = (weights @ v).to(dtype)
        self.q, self.k, self.v, self.weights = (each.to(dtype) for each in (q, k, v, weights))
        self.qkv, self.proj = attn.qkv.weight.to(dtype), attn.proj.weight.to(dtype)

    def push(self, dx: Tangents) -> Tangents:
        dq, dk, dv = self._split(F.linear(dx, self.qkv))  # (H, P, T, d)
        # The rows of all perturbations are stacked: one long product instead of many short ones.
        t = (dq.flatten(1, 2) * self.scale @ self.k.mT).unflatten(1, dq.shape[1:3])
        t = t.add_(self.q[:, None] @ dk.mT).mul_(self.weights[:, None])
        dmixed = (t.flatten(1, 2) @ self.v).view_as(dq)
        dmixed.addcmul_(t.sum(-1, keepdim=True), self.mixed[:, None], value=-1)
        carried = self.weights @ dv.transpose(1, 2).flatten(2)
        dmixed.add_(carried.unflatten(2, dv.shape[1::2]).transpose(1, 2))
        return self._project(dmixed)

    def push_one(self, dx: Tangents, places: Int[Tensor, " perturbations"]) -> Tangents:
        """As `push`, of tangents at one token each: one key and value move, and one query."""
        dq, dk, dv = self._split(F.linear(dx, self.qkv))  # (H, P, d)
        weights = self.weights[:, :, places].mT[..., None]  # of the moved key, (H, P, T, 1)
        t = weights * (dk @ self.q.mT)[..., None]
        dmixed = t * (self.v[:, places, None] - self.mixed[:, None]) + weights * dv[:, :, None]
        t = self.weights[:, places] * (dq * self.scale @ self.k.mT)  # of the moved query, (H, P, T)
        moved = t @ self.v - t.sum(-1, keepdim=True) * self.mixed[:, places]
        dmixed[:, torch.arange(len(dx), device=dx.device), places] += moved
        return self._project(dmixed)

    def _split(self, qkv: Float[Tensor, "*rows three_dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (H, *rows, d)."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).movedim((-3, -2), (0, 1)).unbind(0)
        return q, k, v

    def _project(self, dmixed: Float[Tensor, "heads perturbations tokens head_dim"]) -> Tangents:
        return F.linear(dmixed.permute(1, 2, 0, 3).flatten(2), self.proj)
