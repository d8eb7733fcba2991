"""Objects of a clip from a ViT's attention: prototypes, their refinement, and masks (DoRA).

DoRA (Venkataramanan et al., "Is ImageNet worth 1 video?", ICLR 2024) finds objects in
the first frame of a clip and tracks them through the others, without labels. Everything here is
computed in float32 and without gradient.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from midway.nn.losses.dino import full_precision
from midway.nn.losses.sinkhorn import sinkhorn_knopp

Prototypes = Float[Tensor, "batch objects dim"]


@torch.no_grad()
def attended_prototypes(
    queries: Float[Tensor, "batch heads patches head_dim"],
    cls_attention: Float[Tensor, "batch heads patches"],
    heads: Int[Tensor, " objects"],
) -> Prototypes:
    """Return one prototype per head: the patch queries, weighted by the class token's attention.

    Args:
        queries: Queries of the last block, of the patches only.
        cls_attention: Attention of the class token to the patches.
        heads: Heads that give the objects.

    """
    joined = queries.float().transpose(1, 2).flatten(2)  # (batch, patches, heads * head_dim)
    return _product(cls_attention.float()[:, heads], joined)


@torch.no_grad()
def refined_prototypes(
    patches: Float[Tensor, "batch patches dim"],
    prototypes: Prototypes,
    *,
    temperature: float,
    rounds: int,
) -> Prototypes:
    """Return the sum of the unit-length patches that Sinkhorn-Knopp assigns to each prototype.

    Every object receives about the same number of patches, so that no two become the same.

    Args:
        patches: Patch tokens of the frame in which the objects are found.
        prototypes: Prototypes from `attended_prototypes`.
        temperature: Divisor of the similarities.
        rounds: Rounds of Sinkhorn-Knopp.

    """
    unit = F.normalize(patches.float(), dim=-1)
    similarity = _product(unit, prototypes.transpose(1, 2))  # (batch, patches, objects)
    shares = sinkhorn_knopp(similarity / temperature, rounds=rounds)
    return _product(shares.transpose(1, 2), unit)


@torch.no_grad()
def object_masks(
    prototypes: Prototypes,
    keys: Float[Tensor, "frames batch heads patches head_dim"],
    *,
    threshold_over: Literal["image", "batch"],
) -> Bool[Tensor, "objects frames batch patches"]:
    """Return the patches of each frame that an object attends to more than to the average one.

    Args:
        prototypes: Refined prototypes.
        keys: Keys of the last block for every frame, of the patches only.
        threshold_over: Patches whose mean attention is the threshold: those of the same frame and
            sample, or those of the same frame in the whole batch (as released).

    """
    joined = keys.float().transpose(2, 3).flatten(3)  # (frames, batch, patches, dim)
    # (1, batch, objects, dim) x (frames, batch, dim, patches)
    scores = _product(prototypes[None], joined.transpose(2, 3)) * joined.shape[-1] ** -0.5
    # The unit length matters to the mean over a batch only.
    weights = F.normalize(scores.softmax(-1), dim=-1)
    axes = (-1,) if threshold_over == "image" else (1, -1)
    return (weights > weights.mean(axes, keepdim=True)).permute(2, 0, 1, 3)


def mask_images(
    images: Float[Tensor, "*batch 3 height width"],
    masks: Bool[Tensor, "*masks patches"],
    patch_size: int,
) -> Float[Tensor, "*masks 3 height width"]:
    """Set the patches outside the masks to 0, the mean colour of ImageNet.

    Args:
        images: ImageNet-normalised images; leading axes broadcast against those of the masks.
        masks: True for the patches to keep, row by row.
        patch_size: Side of a patch in pixels.

    """
    rows, columns = (side // patch_size for side in images.shape[-2:])
    grid = masks.unflatten(-1, (1, rows, columns))  # one channel for all three colours
    pixels = grid.repeat_interleave(patch_size, -1).repeat_interleave(patch_size, -2)
    return images * pixels


def _product(a: Tensor, b: Tensor) -> Tensor:
    # Autocast would round the product.
    with full_precision(a):
        return a @ b
