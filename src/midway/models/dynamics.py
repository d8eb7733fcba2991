"""The dynamics between two frames: midway path, backward layers, gated forward model.

The paper's symbols: z features, m motion latents, v backward features, z^ prediction; a tilde
marks the teacher's side. Levels go from the top (12) down: 9, 6, 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_least
from midway.errors import MidwayError
from midway.nn.blocks import Block, CrossBlock, Gate, GatedBlock, init_transformer
from midway.nn.dense import normalized_mse
from midway.nn.embed import resample_positions
from midway.nn.linear import Linear
from midway.nn.mimetic import AMPLITUDE, sincos_positions, start_carrying, start_comparing

NORM_EPS = 1e-5
Features = Float[Tensor, "batch tokens dim"]


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Sizes of the dynamics and what the paper ablates (tables 3 and 5)."""

    levels: tuple[int, ...] = (3, 6, 9)
    """Encoder levels whose features are predicted, 1-based and rising."""
    latent_dynamics: bool = True
    """Infer motion latents for the forward model; without, it sees the source alone."""
    backward_layers: bool = True
    """Refine the source features top-down; without, the level's own features serve."""
    refinement: bool = True
    """A lower level infers motion from the prediction above it; without, from the backward
    features above it."""
    gates: bool = True
    gate_input: Literal["previous", "own"] = "previous"
    """Input of a block's gate: what enters the block before (the published weights) or the block
    itself (eq. 2)."""
    midway_width: int = 192
    midway_depth: int = 4
    midway_heads: int = 3
    num_latents: int = 10
    backward_heads: int = 6
    forward_depth: int = 4
    forward_heads: int = 6

    init_std: float = 0.02
    """Deviation of the linear layers' weights before training."""
    starts_matching: bool = False
    """Whether attention begins by comparing and carrying tokens, and the position tables with sines
    and cosines (see `midway.nn.mimetic`), not as published."""

    def __post_init__(self) -> None:
        sizes = ("midway_width", "midway_depth", "midway_heads", "num_latents", "forward_depth")
        heads = ("backward_heads", "forward_heads")
        check_at_least("dynamics", self, **dict.fromkeys(sizes + heads, 1))
        rising = sorted({level for level in self.levels if level >= 1})
        if not self.levels or list(self.levels) != rising:
            raise MidwayError(f"dynamics: levels {self.levels} must rise from 1, without repeats")
        if self.midway_width % self.midway_heads:
            raise MidwayError(
                f"dynamics: midway_width {self.midway_width} is no multiple of midway_heads "
                f"{self.midway_heads}; change one"
            )
        if self.starts_matching and self.midway_width % 4:
            raise MidwayError(
                f"dynamics: midway_width {self.midway_width} is no multiple of 4, which the "
                "positions of starts_matching need; change one"
            )


@dataclass(frozen=True, kw_only=True)
class LevelOutput:
    """What the dynamics found at one level; N patches, width D, midway width W."""

    motion_latents: Float[Tensor, "batch latents midway_width"]
    """m; no tokens without latent dynamics."""
    midway_tokens: Float[Tensor, "batch midway_tokens midway_width"]
    """Output of the midway path: latents, then source tokens, then target tokens; with
    `latents_only` no more than the latents."""
    source_backward: Features
    """v: the source's backward features."""
    target_backward: Features
    """v~: the target's, by the teacher's layers."""
    prediction: Features
    """z^: the predicted features of the target."""
    target: Features
    """z~: the teacher's features of the target."""
    gates: tuple[Features, ...]
    """Gates of forward blocks 2, 3, ...; empty without gates."""
    loss: Float[Tensor, ""]
    """Dense forward prediction error (eq. 1)."""


class TargetSide(nn.Module):
    """The parts of the dynamics that also see the target; the teacher holds an EMA copy."""

    def __init__(self, dim: int, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.down = Linear(dim, config.midway_width) if config.latent_dynamics else nn.Identity()
        refined = config.levels if config.backward_layers else ()
        self.backward_layers = nn.ModuleDict(
            {
                str(level): CrossBlock(dim, config.backward_heads, norm_eps=NORM_EPS)
                for level in refined
            }
        )


class MidwayPath(nn.Module):
    """Infers motion latents between two frames, from the top level down (inverse dynamics)."""

    def __init__(self, dim: int, grid: tuple[int, int], config: DynamicsConfig) -> None:
        super().__init__()
        self.grid = grid
        width = config.midway_width
        self.motion_tokens = nn.Parameter(torch.zeros(1, config.num_latents, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 * (1 + grid[0] * grid[1]), width))
        self.blocks = nn.ModuleDict(
            {
                str(level): nn.Sequential(
                    *(
                        Block(width, config.midway_heads, qkv_bias=False, norm_eps=NORM_EPS)
                        for _ in range(config.midway_depth)
                    )
                )
                for level in config.levels
            }
        )
        self.up = Linear(width, dim)

    def positions(
        self, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]:
        """Position tables of source and target tokens for a grid of patches."""
        source, target = self.pos_embed.chunk(2, dim=1)
        return (
            resample_positions(source, self.grid, grid),
            resample_positions(target, self.grid, grid),
        )

    def compare(
        self,
        level: int,
        tokens: Float[Tensor, "batch midway_tokens width"],
        *,
        latents_only: bool,
    ) -> Float[Tensor, "batch wanted width"]:
        """Refine latents, source and target tokens by a level's blocks.

        Args:
            level: Whose blocks.
            tokens: Latents, then the tokens of the source, then those of the target.
            latents_only: Whether the last block gives the latents alone.

        """
        *blocks, last = self.blocks[str(level)].children()
        for block in blocks:
            tokens = block(tokens)
        return last(tokens, self.motion_tokens.shape[1] if latents_only else None)


class ForwardDynamics(nn.Module):
    """Predicts the target's dense features of one level from backward features and latents."""

    def __init__(self, dim: int, config: DynamicsConfig) -> None:
        super().__init__()
        self.gate_input = config.gate_input
        self.blocks = nn.ModuleList(
            GatedBlock(dim, config.forward_heads, qkv_bias=False, norm_eps=NORM_EPS)
            for _ in range(config.forward_depth)
        )
        num_gates = config.forward_depth - 1 if config.gates else 0
        self.gates = nn.ModuleList(Gate(dim, norm_eps=NORM_EPS) for _ in range(num_gates))

    def forward(
        self, features: Features, latents: Float[Tensor, "batch latents dim"]
    ) -> tuple[Features, tuple[Features, ...]]:
        """Prediction and the gates it used; motion latents always have gate 1 (eq. 2).

        Args:
            features: Backward features v of the source.
            latents: Motion latents at the encoder's width; no tokens without latent dynamics.

        """
        x = torch.cat([latents, features], dim=1)
        num_latents = latents.shape[1]
        gates: list[Tensor] = []
        x_before = x
        for index, block in enumerate(self.blocks):
            full_gate = None
            if index and self.gates:
                read = x_before if self.gate_input == "previous" else x
                gate = self.gates[index - 1](read[:, num_latents:])
                ones = gate.new_ones(len(gate), num_latents, gate.shape[2])
                full_gate = torch.cat([ones, gate], dim=1)
                gates.append(gate)
            x_before, x = x, block(x, full_gate)
        return x[:, num_latents:], tuple(gates)


class Dynamics(TargetSide):
    """Algorithm 1 of the paper between two frames' features.

    Args:
        dim: Width of the encoder.
        grid: Rows and columns of patches that the position table is made for.
        config: Sizes and ablations.

    """

    def __init__(self, dim: int, grid: tuple[int, int], config: DynamicsConfig) -> None:
        super().__init__(dim, config)
        self.dim = dim
        self.config = config
        if config.latent_dynamics:
            self.midway_path = MidwayPath(dim, grid, config)
        self.forward_models = nn.ModuleDict(
            {str(level): ForwardDynamics(dim, config) for level in config.levels}
        )
        init_transformer(self, config.init_std)
        if config.starts_matching:
            self._start_matching(grid)

    def _start_matching(self, grid: tuple[int, int]) -> None:
        transformers = [*self.forward_models.values()]
        if self.config.latent_dynamics:
            path = self.midway_path
            transformers += path.blocks.values()
            table = sincos_positions(grid, self.config.midway_width)
            # What sets target tokens apart from those of the source at the same place.
            is_target = AMPLITUDE / 2 * torch.randn(self.config.midway_width)
            path.pos_embed.data.copy_(torch.cat([table, table + is_target], dim=1))
        for transformer in transformers:
            blocks = [part for part in transformer.modules() if isinstance(part, Block)]
            start_comparing(blocks[0].attn)
            for block in blocks:
                start_carrying(block.attn)

    def forward(
        self,
        source: Sequence[Features],
        target: Sequence[Features],
        teacher: TargetSide,
        grid: tuple[int, int],
        *,
        latents_only: bool = False,
    ) -> dict[int, LevelOutput]:
        """Predict the target at every level, from the top down.

        The target's side is out of the gradient's reach because its features come without one and
        the teacher is frozen. Who finetunes gives these dynamics as their own teacher and trains
        through both frames.

        Args:
            source: The student's features of the source: the objective levels, then the top.
            target: The teacher's features of the target, likewise.
            teacher: The EMA copies that process the target.
            grid: Rows and columns of patches in the features.
            latents_only: Whether the last midway block refines the latents alone; the dense loss
                reads nothing else of it.

        """
        source_at = dict(zip(self.config.levels, source, strict=False))
        target_at = dict(zip(self.config.levels, target, strict=False))
        x = source_above = source[-1]
        target_above = target[-1]
        nothing = x.new_empty(len(x), 0, self.config.midway_width)
        latents = tokens = nothing
        outputs: dict[int, LevelOutput] = {}
        for level in reversed(self.config.levels):
            if self.config.latent_dynamics:
                both = self.down(x), teacher.down(target_above)
                latents, tokens = self._infer_motion(level, latents, *both, grid, latents_only)
            v = self._refine(self, level, source_at[level], source_above)
            v_target = self._refine(teacher, level, target_at[level], target_above)
            prediction, gates = self.forward_models[str(level)](v, self.raise_latents(latents))
            outputs[level] = LevelOutput(
                motion_latents=latents,
                midway_tokens=tokens,
                source_backward=v,
                target_backward=v_target,
                prediction=prediction,
                target=target_at[level],
                gates=gates,
                loss=normalized_mse(prediction, target_at[level]),
            )
            x = prediction if self.config.refinement else v
            source_above, target_above = v, v_target
        return outputs

    def raise_latents(
        self, latents: Float[Tensor, "batch latents midway_width"]
    ) -> Float[Tensor, "batch latents dim"]:
        """Motion latents at the encoder's width, as the forward models read them."""
        if not self.config.latent_dynamics:
            return latents.new_empty(len(latents), 0, self.dim)
        return self.midway_path.up(latents)

    def _infer_motion(
        self,
        level: int,
        latents: Tensor,
        source: Tensor,
        target: Tensor,
        grid: tuple[int, int],
        latents_only: bool,
    ) -> tuple[Tensor, Tensor]:
        """Motion latents of a level (they accumulate below the top one) and its midway tokens."""
        path = self.midway_path
        is_top = level == self.config.levels[-1]
        above = path.motion_tokens.expand(len(source), -1, -1) if is_top else latents
        source_positions, target_positions = path.positions(grid)
        tokens = torch.cat([above, source + source_positions, target + target_positions], dim=1)
        tokens = path.compare(level, tokens, latents_only=latents_only)
        found = tokens[:, : above.shape[1]]
        return (found if is_top else found + latents), tokens

    def _refine(self, side: TargetSide, level: int, features: Tensor, memory: Tensor) -> Tensor:
        """Backward features: this level's features refined by those of the level above."""
        if not self.config.backward_layers:
            return features
        return side.backward_layers[str(level)](features, memory)


def mean_or_sum(
    outputs: Mapping[int, LevelOutput], over: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Dense loss over levels: the paper's mean or the release's sum."""
    losses = torch.stack([output.loss for output in outputs.values()])
    return losses.mean() if over == "mean" else losses.sum()
