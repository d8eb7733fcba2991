"""Key layout of V-JEPA 2.1: an encoder with parts for images and for videos."""

from collections.abc import Mapping

from torch import Tensor

MARK = "patch_embed_img.proj.weight"
"""Tensor that only this layout contains: the patch embedding of images."""
_RENAMED = ("patch_embed_img.proj.weight", "patch_embed_img.proj.bias", "img_mod_embed")


def image_part(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], dict[str, list[str]]]:
    """Return the tensors that encode images by our names, and the names of the others by kind.

    Args:
        tensors: Tensors of the encoder, without their common prefix.

    """
    norms = sorted({name.split(".")[1] for name in tensors if name.startswith("norms_block.")})
    last = f"norms_block.{norms[-1]}." if norms else "norms_block."
    found: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        if name.startswith(("patch_embed.", "video_mod_embed")):
            left_out.setdefault("parts for videos", []).append(name)
        elif name.startswith("norms_block.") and not name.startswith(last):
            left_out.setdefault("norms of lower levels", []).append(name)
        elif name not in _RENAMED:
            found[name.replace(last, "top_norm.")] = tensor
    weight, bias, kind = (tensors.get(name) for name in _RENAMED)
    # A frame at a time: (dim, 3, 1, patch, patch) -> (dim, 3, patch, patch)
    if weight is not None and weight.ndim == 5 and weight.shape[2] == 1:
        found["patch_embed.proj.weight"] = weight[:, :, 0]
    if bias is not None and kind is not None and bias.numel() == kind.numel():
        # The embedding that marks images is added to every patch, as is the bias.
        found["patch_embed.proj.bias"] = bias.flatten() + kind.flatten()
    return found, left_out
