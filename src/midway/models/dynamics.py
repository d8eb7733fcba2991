"""Dynamics between two frames: midway path, backward layers, gated forward model (section 3).

The paper's symbols: z features, m motion latents, v backward features, z^ prediction; a tilde
marks the teacher's side. Levels go from the top (12) down: 9, 6, 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from midway.models.dynamics_config import DynamicsConfig
from midway.nn.blocks import Block, CrossBlock, Gate, GatedBlock, init_transformer
from midway.nn.embed import resample_positions
from midway.nn.linear import Linear
from midway.nn.local_correlation import LocalCorrelation
from midway.nn.losses.dense import normalized_mse
from midway.nn.mimetic import AMPLITUDE, sincos_positions, start_carrying, start_comparing

NORM_EPS = 1e-5
Features = Float[Tensor, "batch tokens dim"]


@dataclass(frozen=True, kw_only=True)
class LevelOutput:
    """Output of the dynamics at one level."""

    motion_latents: Float[Tensor, "batch latents midway_width"]
    """m; empty without latent dynamics."""
    midway_tokens: Float[Tensor, "batch midway_tokens midway_width"]
    """Output of the midway path: latents, then source tokens, then target tokens; only the latents
    with `latents_only`."""
    source_backward: Features
    """v: backward features of the source."""
    target_backward: Features
    """v~: backward features of the target, by the teacher's layers."""
    prediction: Features
    """z^: predicted features of the target."""
    target: Features
    """z~: features of the target by the teacher."""
    gates: tuple[Features, ...]
    """Gates of forward blocks 2, 3, ...; empty without gates."""
    loss: Float[Tensor, ""]
    """Dense forward prediction error (eq. 1)."""


class TargetSide(nn.Module):
    """Parts of the dynamics that process the target too; the teacher contains an EMA copy."""

    def __init__(self, dim: int, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        # One projection for all levels (Algorithm 1).
        self.down = Linear(dim, config.midway_width) if config.latent_dynamics else nn.Identity()
        refined = config.levels if config.backward_layers else ()
        self.backward_layers = nn.ModuleDict(
            {
                str(level): CrossBlock(dim, config.backward_heads, norm_eps=NORM_EPS)
                for level in refined
            }
        )


class MidwayPath(nn.Module):
    """Inverse dynamics: infers motion latents between two frames, from the top level down."""

    def __init__(self, dim: int, grid: tuple[int, int], config: DynamicsConfig) -> None:
        super().__init__()
        self.grid = grid
        width = config.midway_width
        # Zeros at the start; the position table has one half for the source, one for the target.
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
        radius = config.correlation_radius
        self.correlation = LocalCorrelation(radius, width) if radius else None

    def positions(
        self, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 tokens width"]]:
        """Return the position tables of source and target tokens for a grid of patches."""
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
        """Refine latents, source and target tokens by the blocks of a level.

        Args:
            level: Level of the blocks.
            tokens: Latents, then source tokens, then target tokens.
            latents_only: If True, the last block computes the latents only.

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
        """Return the prediction z^ and its gates (eq. 2).

        Args:
            features: Backward features v of the source.
            latents: Motion latents at the encoder's width; empty without latent dynamics.

        """
        x = torch.cat([latents, features], dim=1)  # (batch, latents + tokens, dim)
        num_latents = latents.shape[1]
        gates: list[Tensor] = []
        x_before = x
        for index, block in enumerate(self.blocks):
            # The first block has no gate.
            full_gate = None
            if index and self.gates:
                # The release reads the gate one block earlier than eq. 2 states.
                gate_input = x_before if self.gate_input == "previous" else x
                gate = self.gates[index - 1](gate_input[:, num_latents:])  # (batch, tokens, dim)
                # Motion latents have gate 1.
                ones = gate.new_ones(gate.shape[0], num_latents, gate.shape[2])
                full_gate = torch.cat([ones, gate], dim=1)
                gates.append(gate)
            x_before, x = x, block(x, full_gate)
        return x[:, num_latents:], tuple(gates)


class Dynamics(TargetSide):
    """Algorithm 1 of the paper, on the features of two frames.

    Args:
        dim: Width of the encoder.
        grid: Rows and columns of patches in the position table.
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
        if config.latent_dynamics and self.midway_path.correlation:
            self.midway_path.correlation.reset()

    def _start_matching(self, grid: tuple[int, int]) -> None:
        transformers = [*self.forward_models.values()]
        if self.config.latent_dynamics:
            path = self.midway_path
            transformers += path.blocks.values()
            table = sincos_positions(grid, self.config.midway_width)
            # A common offset distinguishes target tokens from source tokens at the same position.
            is_target = AMPLITUDE / 2 * torch.randn(self.config.midway_width)
            path.pos_embed.data.copy_(torch.cat([table, table + is_target], dim=1))
        for transformer in transformers:
            blocks = [part for part in transformer.modules() if isinstance(part, Block)]
            # The first block compares tokens; all blocks copy what they attend to.
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
        latents_of: Int[Tensor, " batch"] | None = None,
        lowest: int | None = None,
    ) -> dict[int, LevelOutput]:
        """Predict the features of the target at every level, from the top down (Algorithm 1).

        Args:
            source: Student's features of the source z: objective levels, then the top.
            target: Teacher's features of the target z~, in the same order.
            teacher: EMA copies that process the target. Pass `self` to train through both frames
                (finetuning).
            grid: Rows and columns of patches in the features.
            latents_only: If True, the last midway block computes the latents only, which is all
                that the dense loss needs.
            latents_of: Pair with whose latents each target is predicted; None for its own.
            lowest: Level at which to stop; None for all levels.

        """
        # No gradient reaches the target's side in pretraining: its features carry none, and the
        # teacher is frozen.
        source_at = dict(zip(self.config.levels, source, strict=False))
        target_at = dict(zip(self.config.levels, target, strict=False))
        # x stands for the source in the midway path; v and v~ of the level above start as the top
        # features z_12 and z~_12.
        x = source_above = source[-1]
        target_above = target[-1]
        latents = tokens = x.new_empty(x.shape[0], 0, self.config.midway_width)
        outputs: dict[int, LevelOutput] = {}
        for level in reversed(self.config.levels):
            if self.config.latent_dynamics:
                # (batch, tokens, dim) -> (batch, tokens, midway_width), source and target
                z, other = self.down(x), teacher.down(target_above)
                if self.midway_path.correlation:
                    z = z + self.midway_path.correlation(x, target_above, grid)
                latents, tokens = self._infer_motion(level, latents, z, other, grid, latents_only)
            # Backward layers: queries from this level, memory from the level above.
            v = self._refine(self, level, source_at[level], source_above)
            v_target = self._refine(teacher, level, target_at[level], target_above)
            given = latents if latents_of is None else latents[latents_of]
            prediction, gates = self.forward_models[str(level)](v, self.raise_latents(given))
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
            if level == lowest:
                break
            # Refinement: below, the prediction replaces the source.
            x = prediction if self.config.refinement else v
            source_above, target_above = v, v_target
        return outputs

    def raise_latents(
        self, latents: Float[Tensor, "batch latents midway_width"]
    ) -> Float[Tensor, "batch latents dim"]:
        """Project motion latents to the encoder's width, for the forward models."""
        if not self.config.latent_dynamics:
            return latents.new_empty(latents.shape[0], 0, self.dim)
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
        """Return the motion latents of a level and its midway tokens."""
        path = self.midway_path
        is_top = level == self.config.levels[-1]
        # The top level starts from the learned motion tokens, a lower one from the latents above.
        above = path.motion_tokens.expand(source.shape[0], -1, -1) if is_top else latents
        source_positions, target_positions = path.positions(grid)
        # (batch, latents + 2 * tokens, midway_width); 10 + 2 * 197 tokens in the paper
        tokens = torch.cat([above, source + source_positions, target + target_positions], dim=1)
        tokens = path.compare(level, tokens, latents_only=latents_only)
        # Latents accumulate from level to level: m = m_new + m.
        found = tokens[:, : above.shape[1]]
        return (found if is_top else found + latents), tokens

    def _refine(self, side: TargetSide, level: int, features: Tensor, memory: Tensor) -> Tensor:
        """Return the backward features: features of a level refined by those of the level above."""
        if not self.config.backward_layers:
            return features
        return side.backward_layers[str(level)](features, memory)
