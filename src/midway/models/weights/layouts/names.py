"""Conversion of the tensor names of other libraries to timm's, which are ours."""

import re
from collections.abc import Iterable, Mapping
from math import isqrt

import torch
from torch import Tensor

# Names of transformers 4 and 5; the order matters.
_TRANSFORMERS = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
        (r"^embeddings\.", ""),
        (r"^(encoder\.|model\.)?layers?\.(?=\d)", "blocks."),
        (r"^layernorm\.", "norm."),
        (r"\.layernorm_before\.", ".norm1."),
        (r"\.layernorm_after\.", ".norm2."),
        (r"\.attention(\.attention)?\.(q|k|v)(uery|ey|alue|_proj)\.", r".attn.\2."),
        (r"\.attention\.attention\.([qv]_bias)$", r".attn.\1"),
        (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
        (r"\.intermediate\.dense\.", ".mlp.fc1."),
        (r"\.(output\.dense|mlp\.down_proj)\.", ".mlp.fc2."),
        (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    )
)
_REGISTERS = ("register_tokens", "storage_tokens")
"""Names of the register tokens in DINOv2 and DINOv3; timm's is ``reg_token``."""
_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")


def is_of_transformers(names: Mapping[str, Tensor]) -> bool:
    """Return whether an encoder has the names of transformers."""
    return any(name.startswith("embeddings.patch_embeddings.") for name in names)


def to_timm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a ViT to timm's names; unknown names are kept.

    Queries, keys and values of a block are fused into one tensor. Biases that a layout lacks become
    zeros, except that VideoMAE's stay ``q_bias`` and ``v_bias``.
    """
    found = dict(tensors)
    if is_of_transformers(found):
        found = {from_transformers(name): tensor for name, tensor in found.items()}
    found = {_with_timms_tokens(name): tensor for name, tensor in _unchunked(found).items()}
    patches = found.get("patch_embed.proj.weight")
    is_video = patches is not None and patches.ndim == 5
    for block in sorted({name.split(".")[1] for name in found if name.startswith("blocks.")}):
        _fuse_projections(found, f"blocks.{block}.attn.", fuse_biases=not is_video)
        _name_gates(found, f"blocks.{block}.mlp.")
    _add_class_position(found)
    return found


def from_transformers(name: str) -> str:
    """Return timm's name for a tensor of a ViT in transformers 4 or 5."""
    for pattern, new in _TRANSFORMERS:
        name = pattern.sub(new, name)
    return name


def _with_timms_tokens(name: str) -> str:
    # In timm, the factors of DINOv3 are called gamma_1 and gamma_2.
    name = re.sub(r"^(blocks\.\d+\.)gamma_([12])$", r"\1ls\2.gamma", name)
    return "reg_token" if name in _REGISTERS else name


def _unchunked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the number of the chunk from ``blocks.CHUNK.BLOCK.``, as DINOv2 names them."""
    blocks = [name for name in tensors if name.startswith("blocks.")]
    if not blocks or not all(map(_CHUNK.match, blocks)):
        return tensors
    # The number of the block counts through all chunks.
    return {_CHUNK.sub("blocks.", name): tensor for name, tensor in tensors.items()}


def _fuse_projections(tensors: dict[str, Tensor], attn: str, *, fuse_biases: bool) -> None:
    """Replace separate queries, keys and values, or separate biases, of a block in place."""
    parts = [f"{attn}{part}.weight" for part in "qkv"]
    if all(part in tensors for part in parts) and _are_alike(tensors[part] for part in parts):
        tensors[f"{attn}qkv.weight"] = torch.cat([tensors.pop(part) for part in parts])
        biases = [f"{attn}{part}.bias" for part in "qkv"]
    else:
        biases = [f"{attn}{part}_bias" for part in "qkv"]
    if not fuse_biases:
        given = {part: tensors.pop(part) for part in biases if part in tensors}
        tensors |= {name.replace(".bias", "_bias"): bias for name, bias in given.items()}
        return
    weight, bias = tensors.get(f"{attn}qkv.weight"), f"{attn}qkv.bias"
    if weight is None or weight.ndim != 2 or weight.shape[0] % 3:
        return
    dim = weight.shape[0] // 3
    if bias not in tensors:
        given = [tensors.get(part, weight.new_zeros(dim)) for part in biases]
        # Others stay as they are, and are reported.
        if _are_alike([*given, weight.new_zeros(dim)]):
            tensors[bias] = torch.cat(given)
            for part in biases:
                tensors.pop(part, None)
    elif tensors.pop(f"{attn}qkv.bias_mask", None) is not None and tensors[bias].shape == (
        3 * dim,
    ):
        # DINOv3 stores a bias of the keys, but multiplies it by zero.
        tensors[bias] = tensors[bias].clone()
        tensors[bias][dim : 2 * dim] = 0


def _name_gates(tensors: dict[str, Tensor], mlp: str) -> None:
    """Rename the layers of a gated MLP, in any known layout, to timm's names, in place."""
    last = tensors.get(f"{mlp}fc2.weight")
    # In timm's DINOv2, fc1 has the gate and the hidden layer: twice the inputs of fc2.
    twice = 0 if last is None or last.ndim != 2 else 2 * last.shape[1]
    for end in ("weight", "bias"):
        for packed in ("w12", "weights_in", "fc1"):
            both = tensors.get(f"{mlp}{packed}.{end}")
            if both is None or not both.ndim or (packed == "fc1" and len(both) != twice):
                continue
            if len(both) % 2 == 0 and len(both):
                del tensors[f"{mlp}{packed}.{end}"]
                tensors[f"{mlp}fc1_g.{end}"], tensors[f"{mlp}fc1_x.{end}"] = both.chunk(2)
        has_gate = f"{mlp}gate_proj.{end}" in tensors or f"{mlp}w1.{end}" in tensors
        for old, new in (
            ("gate_proj", "fc1_g"),
            ("w1", "fc1_g"),
            ("w2", "fc1_x"),
            ("up_proj", "fc1_x" if has_gate else "fc1"),
            ("w3", "fc2"),
            ("weights_out", "fc2"),
        ):
            if (tensor := tensors.pop(f"{mlp}{old}.{end}", None)) is not None:
                tensors[f"{mlp}{new}.{end}"] = tensor


def _are_alike(tensors: Iterable[Tensor]) -> bool:
    return len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1


def _add_class_position(tensors: dict[str, Tensor]) -> None:
    """Add a position of zero for the class token where a table has positions of patches only."""
    table = tensors.get("pos_embed")
    # One class token and a square of patches are never a square number of tokens themselves.
    if table is not None and table.ndim == 3 and isqrt(table.shape[1]) ** 2 == table.shape[1]:
        tensors["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
