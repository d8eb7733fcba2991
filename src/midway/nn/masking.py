"""Random masks over patches (uniform, tubes, blocks), and selection of tokens by mask.

A mask is True where a patch is masked. All random numbers come from torch's global generators,
which the training loop seeds at every step; no shape depends on the values of a mask.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Mask = Bool[Tensor, "batch patches"]
Index = Int[Tensor, "batch chosen"]
Tokens = Float[Tensor, "batch patches dim"]

ASPECT = (0.3, 1 / 0.3)
"""Range of height / width of a block, log-uniform (BEiT)."""
TRIES = 10
"""Attempts to place a block before the mask remains as it is."""


def count_masked(num_patches: int, ratio: float) -> int:
    """Return the number of masked patches, rounded down: 147 of 196 for 0.75, 176 for 0.9."""
    # 0.29 * 100 is 28.999999999999996.
    return math.floor(ratio * num_patches + 1e-9)


def random_mask(
    batch: int, num_patches: int, ratio: float, device: torch.device | None = None
) -> Mask:
    """Return uniformly random masks with the same number of patches in each sample."""
    noise = torch.rand(batch, num_patches, device=device)
    masked = noise.topk(count_masked(num_patches, ratio), dim=1).indices
    return torch.zeros_like(noise, dtype=torch.bool).scatter(1, masked, True)


def tube_mask(
    batch: int,
    num_slices: int,
    patches_per_slice: int,
    ratio: float,
    device: torch.device | None = None,
) -> Mask:
    """Return masks of the same random patches in all slices of a clip (VideoMAE).

    Args:
        batch: Number of samples.
        num_slices: Slices in time; tokens are ordered by slice, then row by row.
        patches_per_slice: Patches of a slice.
        ratio: Masked fraction of a slice, rounded down to whole patches.
        device: Device of the mask; None takes torch's default.

    """
    return random_mask(batch, patches_per_slice, ratio, device).repeat(1, num_slices)


def block_mask(ratios: Float[Tensor, " batch"], grid: tuple[int, int]) -> Mask:
    """Return masks made of random rectangles, up to a fraction of the patches (BEiT, iBOT).

    Rectangles are added until the fraction is reached, or until `TRIES` in a row do not fit. One
    fits if it masks new patches, but no more than are missing.

    Args:
        ratios: Fraction of the patches of each sample, from 0 to 1, on the CPU.
        grid: Rows and columns of patches.

    Returns:
        The masks, on the CPU.

    """
    # On the host, because the number of rounds depends on the values drawn; all samples together.
    # "cpu" by name: the default device may be meta.
    rows, columns = grid
    wanted = ratios.double() * (rows * columns)  # (batch,), not rounded
    mask = torch.zeros(len(ratios), rows, columns, dtype=torch.bool, device="cpu")
    failed = torch.zeros(len(ratios), dtype=torch.long, device="cpu")
    missing = wanted.clone()
    while len(open_ := ((missing > 0) & (failed < TRIES)).nonzero()[:, 0]):
        block = _as_masks(draw_blocks(missing[open_], grid), grid) & ~mask[open_]
        added = block.sum((1, 2))
        fits = (added > 0) & (added <= missing[open_])
        mask[open_] |= block & fits[:, None, None]
        missing[open_] -= added * fits
        failed[open_] = torch.where(fits, 0, failed[open_] + 1)
    return mask.flatten(1)


def draw_blocks(missing: Float[Tensor, " batch"], grid: tuple[int, int]) -> Int[Tensor, "batch 4"]:
    """Draw one rectangle for each mask: uniform area, log-uniform aspect ratio, any position.

    Args:
        missing: Largest area in patches. The other limit is the square of a third of the grid's
            shorter side, which may be larger.
        grid: Rows and columns of patches.

    Returns:
        Top, left, height and width; all 0 if the rectangle is not shorter than the grid.

    """
    sides = torch.tensor(grid, dtype=torch.float64, device="cpu")  # (2,)
    chance = torch.rand(4, len(missing), dtype=torch.float64, device="cpu")
    smallest = (min(grid) // 3) ** 2
    area = smallest + (missing - smallest) * chance[0]
    low, high = (math.log(limit) for limit in ASPECT)
    root = (0.5 * (low + (high - low) * chance[1])).exp()
    # height * width = area and height / width = root^2, each rounded to whole patches.
    extent = torch.stack([area.sqrt() * root, area.sqrt() / root], dim=1).round()  # (batch, 2)
    corner = (chance[2:].T * (sides - extent + 1)).floor()
    fits = (extent < sides).all(1, keepdim=True)
    return torch.cat([corner, extent], dim=1).mul(fits).long()


def kept_and_masked(mask: Mask, num_masked: int) -> tuple[Index, Index]:
    """Return the indices of the kept and of the masked patches of each sample, in ascending order.

    Args:
        mask: Masks of `num_masked` patches each, or of fewer.
        num_masked: Number of masked patches, from `count_masked`. If a mask has fewer, the last
            kept patches stand before its masked ones.

    """
    order = mask.byte().argsort(dim=1, stable=True)  # kept patches first
    kept, masked = order.split((mask.shape[1] - num_masked, num_masked), dim=1)
    return kept, masked


def gather_tokens(tokens: Tokens, index: Index) -> Float[Tensor, "batch chosen dim"]:
    """Return the tokens at the given indices of each sample."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[2]))


def scatter_tokens(
    tokens: Float[Tensor, "batch chosen dim"],
    index: Index,
    filling: Float[Tensor, " dim"],
    num_patches: int,
) -> Tokens:
    """Put tokens back at their indices, and `filling`, such as a mask token, everywhere else."""
    rest = filling.to(tokens.dtype).expand(len(tokens), num_patches, -1)
    return rest.scatter(1, index[..., None].expand(-1, -1, tokens.shape[2]), tokens)


def _as_masks(blocks: Int[Tensor, "batch 4"], grid: tuple[int, int]) -> Tensor:
    """Return the masks (batch, rows, columns) of rectangles."""
    inside = [
        (place >= start[:, None]) & (place < (start + length)[:, None])
        for place, start, length in zip(
            (torch.arange(side, device="cpu") for side in grid),
            blocks[:, :2].T,
            blocks[:, 2:].T,
            strict=True,
        )
    ]
    return inside[0][:, :, None] & inside[1][:, None, :]
