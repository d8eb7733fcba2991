"""Plain forward pass of the network, in the usual style of paper code.

It reads the weights of our modules and shares no other code with them. Each frame and each order of
a pair is a pass of its own, crops of one size share a pass (as in DINO's multi-crop wrapper), and
all tokens are computed even if no output depends on them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.models.dynamics import ForwardDynamics, TargetSide
from midway.models.encoders.vit import VisionTransformer
from midway.models.midway import MidwayNetwork
from midway.nn.blocks import Attention, Block, CrossAttention, CrossBlock, Gate, Mlp
from midway.nn.losses.dino import DinoHead

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention function of queries, keys and values of shape (batch, heads, tokens, head_dim)."""


def attend_written_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute softmax attention as two matrix products, in autocast's type if it is enabled."""
    scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
    return scores.softmax(dim=-1) @ v


def encode(
    vit: VisionTransformer, images: Tensor, levels: tuple[int, ...], attend: Attend
) -> list[Tensor]:
    """Return the normalised features after some blocks, each (batch, 1 + patches, dim)."""
    patches = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
    cls = vit.cls_token.expand(images.shape[0], -1, -1)
    grid = tuple(side // vit.config.patch_size for side in images.shape[-2:])
    x = torch.cat((cls, patches), dim=1) + _positions(vit.pos_embed, vit.config.grid, grid)
    outputs = []
    for i, block in enumerate(vit.blocks):
        assert isinstance(block, Block)
        x = _block(block, x, attend)
        if i + 1 in levels:
            outputs.append(vit.norm(x))
    return outputs


def project(head: DinoHead, x: Tensor) -> Tensor:
    """Compute the DINO logits of class tokens."""
    for layer in head.mlp:
        x = _linear(layer, x) if isinstance(layer, nn.Linear) else layer(x)
    x = F.normalize(x, dim=-1)
    weight = head.last_layer.gain * F.normalize(head.last_layer.direction, dim=-1)
    return F.linear(x, weight)


def dense_losses(
    network: MidwayNetwork,
    source: list[Tensor],
    target: list[Tensor],
    grid: tuple[int, int],
    attend: Attend,
) -> list[Tensor]:
    """Compute the dense loss of each level in one order of the pair, top-down (Algorithm 1).

    Args:
        network: Network with the dynamics and the teacher.
        source: Student features of the source at all levels and the top.
        target: Teacher features of the target at the same levels.
        grid: Rows and columns of patches.
        attend: Attention function.

    """
    dynamics, teacher, path = network.dynamics, network.teacher, network.dynamics.midway_path
    source_positions, target_positions = (
        _positions(table, path.grid, grid) for table in path.pos_embed.chunk(2, dim=1)
    )
    levels = dynamics.config.levels
    x = v = source[-1]
    v_target = target[-1]
    latents = path.motion_tokens.expand(x.shape[0], -1, -1)
    count = latents.shape[1]
    losses = []
    for i in reversed(range(len(levels))):
        name = str(levels[i])
        seen = _linear(dynamics.down, x) + source_positions
        wanted = _linear(teacher.down, v_target).detach() + target_positions
        tokens = torch.cat((latents, seen, wanted), dim=1)
        for block in path.blocks[name].children():
            assert isinstance(block, Block)
            tokens = _block(block, tokens, attend)
        latents = tokens[:, :count] if i == len(levels) - 1 else tokens[:, :count] + latents
        v = _refine(dynamics, name, source[i], v, attend)
        with torch.no_grad():
            v_target = _refine(teacher, name, target[i], v_target, attend)
        forward_model = dynamics.forward_models[name]
        assert isinstance(forward_model, ForwardDynamics)
        x = _predict(forward_model, v, _linear(path.up, latents), attend)
        apart = F.normalize(x.float(), dim=-1) - F.normalize(target[i].detach().float(), dim=-1)
        losses.append((apart**2).sum(-1).mean())
    return losses


def _predict(model: ForwardDynamics, features: Tensor, latents: Tensor, attend: Attend) -> Tensor:
    x = torch.cat((latents, features), dim=1)
    count = latents.shape[1]
    inputs: list[Tensor] = []
    for i, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        inputs.append(x)
        if i == 0:
            x = _block(block, x, attend)
            continue
        gate = model.gates[i - 1]
        assert isinstance(gate, Gate)
        read = inputs[i - 1] if model.gate_input == "previous" else x
        weight = torch.sigmoid(_mlp(gate.mlp, gate.norm(read[:, count:])) + 4.0)
        weight = torch.cat((torch.ones_like(weight[:, :1]).expand(-1, count, -1), weight), dim=1)
        assert isinstance(block.mlp, Mlp)
        x = weight * x + _attention(block.attn, block.norm1(x), attend)
        x = x + _mlp(block.mlp, block.norm2(x))
    return x[:, count:]


def _refine(side: TargetSide, name: str, x: Tensor, memory: Tensor, attend: Attend) -> Tensor:
    block = side.backward_layers[name]
    assert isinstance(block, CrossBlock)
    x = x + _attention(block.attn, block.norm1(x), attend)
    x = x + _cross_attention(block.cross_attn, block.norm2(x), block.norm_memory(memory), attend)
    return x + _mlp(block.mlp, block.norm3(x))


def _block(block: Block, x: Tensor, attend: Attend) -> Tensor:
    assert isinstance(block.mlp, Mlp)
    x = x + _drop_path(_attention(block.attn, block.norm1(x), attend), block)
    return x + _drop_path(_mlp(block.mlp, block.norm2(x)), block)


def _drop_path(branch: Tensor, block: Block) -> Tensor:
    p = block.drop_path.p
    if p == 0 or not block.training:
        return branch
    kept = branch.new_empty((branch.shape[0], 1, 1)).bernoulli_(1 - p)
    return branch * kept.div_(1 - p)


def _attention(attn: Attention, x: Tensor, attend: Attend) -> Tensor:
    batch, tokens, dim = x.shape
    qkv = _linear(attn.qkv, x).reshape(batch, tokens, 3, attn.heads, dim // attn.heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return _linear(attn.proj, attend(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))


def _cross_attention(attn: CrossAttention, x: Tensor, memory: Tensor, attend: Attend) -> Tensor:
    batch, tokens, dim = x.shape
    q, k, v = (
        _linear(layer, read).reshape(batch, -1, attn.heads, dim // attn.heads).transpose(1, 2)
        for layer, read in ((attn.query, x), (attn.key, memory), (attn.value, memory))
    )
    return _linear(attn.proj, attend(q, k, v).transpose(1, 2).reshape(batch, tokens, dim))


def _mlp(mlp: Mlp, x: Tensor) -> Tensor:
    return _linear(mlp.fc2, F.gelu(_linear(mlp.fc1, x)))


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply torch's linear function, even if the class of the layer overrides `forward`."""
    assert isinstance(layer, nn.Linear)
    return F.linear(x, layer.weight, layer.bias)


def _positions(table: Tensor, table_grid: tuple[int, ...], grid: tuple[int, ...]) -> Tensor:
    if grid == table_grid:
        return table
    patches = table[:, 1:].reshape(1, *table_grid, -1).permute(0, 3, 1, 2)
    scale = [(wanted + 0.1) / side for wanted, side in zip(grid, table_grid, strict=True)]
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic")
    return torch.cat((table[:, :1], patches.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
