"""Transformer blocks: plain, cross-attention (backward layers) and gated (forward dynamics)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.nn.compilation import Region
from midway.nn.linear import Linear

Tokens = Float[Tensor, "batch tokens dim"]
Heads = Float[Tensor, "batch heads tokens head_dim"]


def attend(q: Heads, k: Heads, v: Heads, *, causal: bool = False) -> Heads:
    """Return softmax(q k^T / sqrt(head_dim)) v, by torch's fused kernel where that is fastest.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        causal: If True, a query attends to no later key; queries and keys are the same tokens.

    """
    # For bfloat16 on a CPU the fused kernel takes 2 to 7 times as long, forward and backward, as
    # two matrix products and a softmax (torch 2.13, 37 to 404 tokens).
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (batch, heads, queries, keys)
    if causal:
        scores = scores + torch.full_like(scores[0, 0], float("-inf")).triu(1)
    return scores.softmax(-1) @ v


class Attention(nn.Module):
    """Multi-head self-attention with fused query, key and value weights (timm's layout).

    With `causal`, a token attends to itself and to the tokens before it only.
    """

    def __init__(self, dim: int, heads: int, *, qkv_bias: bool, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tokens, num_wanted: int | None = None
    ) -> Float[Tensor, "batch wanted dim"]:
        """Attend among the tokens of each sample; return all tokens, or the first `num_wanted`."""
        q, k, v = self.project(x)
        # All tokens are keys and values, but only the wanted ones are queries.
        return self.mix(q[:, :, :num_wanted], k, v)

    def project(self, x: Tokens) -> tuple[Heads, Heads, Heads]:
        """Return the queries, keys and values of all heads."""
        # (batch, tokens, 3 * dim) -> (3, batch, heads, tokens, head_dim)
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        return q, k, v

    def mix(self, q: Heads, k: Heads, v: Heads) -> Tokens:
        """Attend from the queries to the keys, and project the result back to tokens."""
        mixed = attend(q, k, v, causal=self.causal)
        return self.proj(mixed.transpose(1, 2).flatten(2))  # (batch, queries, dim)


class CrossAttention(nn.Module):
    """Multi-head attention from queries to a memory; only the output projection has a bias."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(dim, dim, bias=False)
        self.key = Linear(dim, dim, bias=False)
        self.value = Linear(dim, dim, bias=False)
        self.proj = Linear(dim, dim)

    def forward(
        self, x: Tokens, memory: Float[Tensor, "batch memory dim"]
    ) -> Float[Tensor, "batch tokens dim"]:
        """Attend from each token of `x` to `memory`."""
        # (batch, tokens or memory, dim) -> (batch, heads, tokens or memory, head_dim)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x), self.key(memory), self.value(memory))
        )
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with a GELU (erf) between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform each token independently; shape unchanged."""
        return self.fc2(F.gelu(self.fc1(x)))


class SwiGlu(nn.Module):
    """MLP whose hidden layer is multiplied by a gate (Shazeer, 2020), named as in timm."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1_g = Linear(dim, hidden)
        self.fc1_x = Linear(dim, hidden)
        self.fc2 = Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """Transform each token independently; shape unchanged."""
        return self.fc2(F.silu(self.fc1_g(x)) * self.fc1_x(x))


def block_mlp(dim: int, swiglu: int) -> Mlp | SwiGlu:
    """Return an MLP of ratio 4 if `swiglu` is 0, else a SwiGLU of that hidden width."""
    return SwiGlu(dim, swiglu) if swiglu else Mlp(dim, 4 * dim)


class DropPath(nn.Module):
    """Stochastic depth: drops a residual branch per sample during training.

    The other samples are scaled by 1 / (1 - p), so that the expectation is unchanged.
    """

    drop: Tensor
    stay: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        # Tensors, because compilers treat numbers as constants: each block would need its own code.
        self.register_buffer("drop", torch.zeros(()), persistent=False)
        self.register_buffer("stay", torch.ones(()), persistent=False)
        self.p = p

    @property
    def p(self) -> float:
        """Probability that the branch of a sample is dropped."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        self._p, self.may_drop = p, p > 0
        self.drop.fill_(p)
        self.stay.fill_(1 - p)

    def forward(
        self, x: Tokens, branch: Callable[[Tokens], Tokens]
    ) -> Float[Tensor, "batch wanted dim"]:
        """Return `branch` of `x`; in training, zero for the samples that drop it."""
        if not self.training or not self.may_drop:
            return branch(x)
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
        # On a GPU the host would have to wait for the number of kept samples, and compiled code is
        # for one batch size: both compute the branch of every sample.
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            all_branches = branch(x)
            return all_branches * (keep / self.stay).to(all_branches.dtype)
        kept = keep.flatten().nonzero().flatten()
        some = branch(x.index_select(0, kept))
        some = some * (1 / self.stay).to(some.dtype)
        return some.new_zeros(len(x), *some.shape[1:]).index_copy(0, kept, some)


class LayerScale(nn.Module):
    """Learned factor for each channel of a residual branch (Touvron et al., 2021)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # DINOv2 starts at 1e-5, which would make an untrained network nearly the identity.
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "batch wanted dim"]) -> Float[Tensor, "batch wanted dim"]:
        """Return the scaled branch."""
        return x * self.gamma


class Block(Region):
    """Pre-norm transformer block: self-attention, causal or not, then an MLP with ratio 4.

    With `layer_scale`, both branches have learned factors, named as in timm. With `swiglu` above 0,
    the MLP has a gate and so many hidden channels.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        qkv_bias: bool,
        norm_eps: float,
        drop_path: float = 0.0,
        causal: bool = False,
        layer_scale: bool = False,
        swiglu: int = 0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias=qkv_bias, causal=causal)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = block_mlp(dim, swiglu)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tokens, num_wanted: int | None = None
    ) -> Float[Tensor, "batch wanted dim"]:
        """Return all tokens refined, or the first `num_wanted` of them."""
        x = x[:, :num_wanted] + self.drop_path(
            x, lambda x: self.ls1(self.attn(self.norm1(x), num_wanted))
        )
        return x + self.drop_path(x, lambda x: self.ls2(self.mlp(self.norm2(x))))

    def with_queries_and_keys(self, x: Tokens) -> tuple[Tokens, Heads, Heads]:
        """Return all tokens refined, without stochastic depth, and the queries and keys."""
        q, k, v = self.attn.project(self.norm1(x))
        x = x + self.ls1(self.attn.mix(q, k, v))
        return x + self.ls2(self.mlp(self.norm2(x))), q, k


class CrossBlock(Region):
    """Block of a backward layer: self-attention, cross-attention to the memory, MLP."""

    def __init__(self, dim: int, heads: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, qkv_bias=False)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_memory = nn.LayerNorm(dim, eps=norm_eps)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tokens, memory: Float[Tensor, "batch memory dim"]) -> Tokens:
        """Refine the queries `x` by `memory`, the features of the level above."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), self.norm_memory(memory))
        return x + self.mlp(self.norm3(x))


class Gate(Region):
    """Learned weight in (0, 1) for each channel of each token's residual (paper, section 3)."""

    # sigmoid(4) = 0.98: gates start near 1, the ordinary residual connection.
    BIAS = 4.0

    def __init__(self, dim: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, dim)

    def forward(self, x: Tokens) -> Tokens:
        """Return the gate of each token and channel: sigmoid(MLP(LN(x)) + 4)."""
        return torch.sigmoid(self.mlp(self.norm(x)) + self.BIAS)


class GatedBlock(Block):
    """Block with a gate on the residual of its attention (eq. 2): h = g * x + attention(LN(x))."""

    def forward(self, x: Tokens, gate: Tokens | None = None) -> Tokens:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Refine the tokens; without `gate`, the gate is 1."""
        # The MLP below keeps its ordinary residual.
        residual = x if gate is None else gate * x
        x = residual + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def init_transformer(module: nn.Module, std: float) -> None:
    """Draw all linear weights of `module` from a truncated normal; set their biases to 0.

    Raises:
        MidwayError: The standard deviation is not in (0, 1].
    """
    if not 0 < std <= 1:
        raise MidwayError(f"init_std {std}: is out of range; give a number above 0, up to 1")
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def init_xavier(module: nn.Module) -> None:
    """Initialise linear layers and patch embeddings by Xavier's uniform rule, as MAE does."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d | nn.Conv3d):
            # As a linear layer from the pixels of a patch.
            nn.init.xavier_uniform_(part.weight.flatten(1))
