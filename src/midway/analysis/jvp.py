"""Jacobian-vector products of a forward model, for tangents at a single input token.

The derivatives are implemented by hand. Terms that do not depend on the perturbation are computed
once for all perturbations, and zeros of the tangents in the first block are skipped. Torch's
forward-mode AD does neither, makes more passes over memory, and has no rule for fused attention.

Shapes: P perturbations, T tokens of width D, H heads of width d. `rows` selects the tokens of the
tangents: all tokens for tangents (P, T, D), or one token per perturbation for tangents (P, D).
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
    """Derivative of a forward model at one input, for perturbations of single tokens.

    Args:
        model: Forward model.
        features: Backward features v of one source.
        latents: Motion latents of the pair, raised to the encoder's width; they are constant.
        dtype: Dtype of the tangents; the primal computation keeps the dtype of `features`.

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
            # The first block has no gate.
            module = model.gates[index - 1] if index and model.gates else None
            gate, residual = None, x
            if isinstance(module, Gate):
                gate_input = x_before if self.reads_previous else x
                gate = _Gate(module, gate_input, x, len(latents), dtype)
                residual = gate.residual
            self.gates.append(gate)
            self.blocks.append(_Block(block, x, residual, dtype))
            x_before, x = x, self.blocks[-1].output

    def push(
        self,
        places: Int[Tensor, " perturbations"],
        directions: Float[Tensor, "perturbations dim"],
    ) -> Float[Tensor, "perturbations features dim"]:
        """Return the directional derivatives of all predicted features.

        Args:
            places: Token that each perturbation changes; 0 is the class token.
            directions: Direction of each perturbation.

        """
        entering, places = directions.to(self.dtype), places + self.num_latents
        each = torch.arange(places.shape[0], device=places.device)
        dx_before = None
        dx = self.blocks[0].push_one(entering, places)  # (P, D) to (P, T, D)
        for block, gate in zip(self.blocks[1:], self.gates[1:], strict=True):
            residual = dx
            if gate is not None and self.reads_previous and dx_before is None:
                # The gate of block 2 reads the input, whose tangent is zero except at `places`.
                residual = gate.weight * dx
                residual[each, places] += gate.push(entering, places)
            elif gate is not None:
                dread = dx_before if self.reads_previous and dx_before is not None else dx
                residual = (gate.weight * dx).add_(gate.push(dread))
            dx_before, dx = dx, block.push(dx, residual)
        return dx[:, self.num_latents :]


class _Block:
    """Derivative of a block: h = residual + attention(norm(x)), y = h + mlp(norm(h))."""

    def __init__(self, block: GatedBlock, x: Primal, residual: Primal, dtype: torch.dtype) -> None:
        self.norm1 = _Norm(block.norm1, x, dtype)
        self.attn = _Attention(block.attn, block.norm1(x), dtype)
        h = residual + block.attn(block.norm1(x)[None])[0]
        self.norm2 = _Norm(block.norm2, h, dtype)
        assert isinstance(block.mlp, Mlp), "dynamics have no gated MLPs"
        self.mlp = _Mlp(block.mlp, block.norm2(h), dtype)
        self.output = h + block.mlp(block.norm2(h))

    def push(self, dx: Tangents, residual: Tangents) -> Tangents:
        dh = self.attn.push(self.norm1.push(dx)).add_(residual)
        return self.mlp.push(self.norm2.push(dh)).add_(dh)

    def push_one(self, dx: Tangents, places: Tensor) -> Tangents:
        """Return tangents (P, T, D) for tangents (P, D) at one token each, in an ungated block."""
        dh = self.attn.push_one(self.norm1.push(dx, places), places)
        dh[torch.arange(dx.shape[0], device=dx.device), places] += dx
        return self.mlp.push(self.norm2.push(dh)).add_(dh)


class _Norm:
    """Derivative of layer norm: y = weight * unit + bias, with unit = (x - mean) / deviation.

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
    """Derivative of an MLP: y = fc2(gelu(a)) with a = fc1(x).

    dy = fc2(gelu'(a) * fc1(dx)), with both layers without bias.
    """

    def __init__(self, mlp: Mlp, x: Primal, dtype: torch.dtype) -> None:
        a = mlp.fc1(x)
        density = (-0.5 * a.square()).exp() / (2 * torch.pi) ** 0.5
        # gelu(a) = a * cdf(a), so gelu'(a) = cdf(a) + a * density(a).
        self.slope = (0.5 * (1 + torch.erf(a / 2**0.5)) + a * density).to(dtype)
        self.fc1, self.fc2 = mlp.fc1.weight.to(dtype), mlp.fc2.weight.to(dtype)

    def push(self, dx: Tangents, rows: Rows = ALL) -> Tangents:
        return F.linear(F.linear(dx, self.fc1).mul_(self.slope[rows]), self.fc2)


class _Gate:
    """Derivative of a gated residual: g * x with g = sigmoid(mlp(norm(read)) + bias).

    Gates of motion latents are 1.
    """

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
        """Return dg * x, the term of the residual's derivative due to the gate."""
        return self.mlp.push(self.norm.push(dread, rows), rows).mul_(self.slope[rows])


class _Attention:
    """Derivative of attention: y = proj(weights v) with weights = softmax(q k), and q scaled.

    d weights = t - weights * sum(t) with t = weights * (dq k + q dk), with sums over keys.
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
        # (H, P * T, d) @ (H, d, T): one large matrix product instead of P small ones.
        t = (dq.flatten(1, 2) * self.scale @ self.k.mT).unflatten(1, dq.shape[1:3])
        t = t.add_(self.q[:, None] @ dk.mT).mul_(self.weights[:, None])
        dmixed = (t.flatten(1, 2) @ self.v).view_as(dq)
        # (d weights) v = t v - sum(t) * (weights v)
        dmixed.addcmul_(t.sum(-1, keepdim=True), self.mixed[:, None], value=-1)
        # weights dv: (H, T, T) @ (H, T, P * d), again one product
        weighted = self.weights @ dv.transpose(1, 2).flatten(2)
        dmixed.add_(weighted.unflatten(2, dv.shape[1::2]).transpose(1, 2))
        return self._project(dmixed)

    def push_one(self, dx: Tangents, places: Int[Tensor, " perturbations"]) -> Tangents:
        """Return `push` of tangents (P, D) at one token each: one query, key and value vary."""
        dq, dk, dv = self._split(F.linear(dx, self.qkv))  # (H, P, d)
        weights = self.weights[:, :, places].mT[..., None]  # of the varied key, (H, P, T, 1)
        t = weights * (dk @ self.q.mT)[..., None]
        dmixed = t * (self.v[:, places, None] - self.mixed[:, None]) + weights * dv[:, :, None]
        t = self.weights[:, places] * (
            dq * self.scale @ self.k.mT
        )  # of the varied query, (H, P, T)
        of_query = t @ self.v - t.sum(-1, keepdim=True) * self.mixed[:, places]
        dmixed[:, torch.arange(dx.shape[0], device=dx.device), places] += of_query
        return self._project(dmixed)

    def _split(self, qkv: Float[Tensor, "*rows three_dim"]) -> tuple[Tensor, Tensor, Tensor]:
        """Split into queries, keys and values, each (H, *rows, d)."""
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).movedim((-3, -2), (0, 1)).unbind(0)
        return q, k, v

    def _project(self, dmixed: Float[Tensor, "heads perturbations tokens head_dim"]) -> Tangents:
        """Concatenate the heads and apply the output projection without bias."""
        return F.linear(dmixed.permute(1, 2, 0, 3).flatten(2), self.proj)
