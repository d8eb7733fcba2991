"""Small networks of transformers, and their weights in the key layouts of published checkpoints."""

import math
import re
from typing import Any

import torch
import transformers
from torch import Tensor

SIDE, PATCH, WIDTH, DEPTH, HEADS = 32, 8, 24, 2, 2
SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": SIDE,
    "patch_size": PATCH,
}
MLP, RATIO = {"intermediate_size": 4 * WIDTH}, {"mlp_ratio": 4}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "vit": ("ViTModel", "ViTConfig", MLP),
    "mae": ("ViTMAEModel", "ViTMAEConfig", MLP | {"mask_ratio": 0.0}),
    "mae_full": ("ViTMAEForPreTraining", "ViTMAEConfig", MLP | DECODER),
    "dinov2": ("Dinov2Model", "Dinov2Config", RATIO),
    "dinov2_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", RATIO),
    "dinov2_gated": ("Dinov2Model", "Dinov2Config", RATIO | {"use_swiglu_ffn": True}),
    "dinov3_gated": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        MLP | {"num_register_tokens": 4, "use_gated_mlp": True, "hidden_act": "silu"},
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", MLP | {"num_register_tokens": 4}),
}


def network(kind: str, **sizes: Any) -> Any:
    """A network of transformers in evaluation mode, with every tensor but fixed positions drawn."""
    model, config, more = KINDS[kind]
    torch.manual_seed(0)
    made = getattr(transformers, model)(getattr(transformers, config)(**SIZES, **more, **sizes))
    for name, parameter in made.named_parameters():
        parameter.data.normal_(1 if "norm" in name or "lambda" in name else 0, 0.2)
        if "mae" in kind and name.endswith("position_embeddings"):
            parameter.data = maes_positions(made.config.image_size // PATCH)
    return made.eval()


def maes_positions(side: int) -> Tensor:
    """MAE's table: the first half encodes the column, each half is sines, then cosines."""
    table = torch.zeros(1, 1 + side**2, WIDTH)
    quarter = WIDTH // 4
    for patch in range(side**2):
        for half, position in enumerate((patch % side, patch // side)):
            for i in range(quarter):
                angle = position / 10000 ** (2 * i / (WIDTH // 2))
                table[0, 1 + patch, 2 * half * quarter + i] = math.sin(angle)
                table[0, 1 + patch, (2 * half + 1) * quarter + i] = math.cos(angle)
    return table


def with_timms_names(model: Any) -> dict[str, Tensor]:
    """The tensors of a network by the names of timm, queries, keys and values in one."""
    found: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        new = name
        for old, ours in (
            ("embeddings.position_embeddings", "pos_embed"),
            ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
            ("embeddings.patch_embeddings.", "patch_embed.proj."),
            ("embeddings.", ""),
            ("encoder.layer.", "blocks."),
            ("model.layer.", "blocks."),
            ("layers.", "blocks."),
            ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"),
            ("layernorm.", "norm."),
            ("attention.o_proj", "attn.proj"),
            ("mlp.up_proj", "mlp.fc1"),
            ("mlp.down_proj", "mlp.fc2"),
            ("layer_scale1.lambda1", "ls1.gamma"),
            ("layer_scale2.lambda1", "ls2.gamma"),
        ):
            new = new.replace(old, ours)
        found[new] = tensor
    for block in range(DEPTH):
        for end in ("weight", "bias"):
            names = [f"blocks.{block}.attention.{part}_proj.{end}" for part in "qkv"]
            parts = [found.pop(name, torch.zeros(WIDTH)) for name in names]  # DINOv3: no key bias
            found[f"blocks.{block}.attn.qkv.{end}"] = torch.cat(parts)
    # MLPs with a gate: timm's names are fc1_g, fc1_x and fc2.
    found = {name.replace("gate_proj", "fc1_g"): tensor for name, tensor in found.items()}
    for name in [name for name in found if name.endswith(("fc1_g.weight", "fc1_g.bias"))]:
        found[name.replace("fc1_g", "fc1_x")] = found.pop(name.replace("fc1_g", "fc1"))
    return {name: tensor for name, tensor in found.items() if not name.startswith("pooler")}


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def dino_head(prefix: str, *, patches: bool = False) -> dict[str, Tensor]:
    """Names of DINO's projection head; iBOT has a second last layer."""
    names = [f"mlp.{layer}.{end}" for layer in (0, 2, 4) for end in ("weight", "bias")]
    lasts = ["last_layer", "last_layer2"] if patches else ["last_layer"]
    names += [f"{last}.weight_{part}" for last in lasts for part in "gv"]
    return {f"{prefix}head.{name}": torch.ones(2) for name in names}


def full(state: dict[str, Tensor], loss: dict[str, Tensor], *, ibot: bool) -> dict[str, Any]:
    """A full checkpoint of DINO or iBOT; the student has other weights than the teacher."""
    student = {name: tensor + 1 for name, tensor in state.items()}
    if ibot:
        student["masked_embed"] = torch.zeros(1, WIDTH)
    return {
        "student": below("module.backbone.", student) | dino_head("module.", patches=ibot),
        "teacher": below("backbone.", state) | dino_head("", patches=ibot),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "epoch": 300,
        "args": {"arch": "vit_small", "patch_size": PATCH},
        "ibot_loss" if ibot else "dino_loss": loss,
        "fp16_scaler": None,
    }


def mae_full(state: dict[str, Tensor]) -> dict[str, Any]:
    """MAE's encoder with its decoder."""
    names = ["mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_embed.bias"]
    names += ["decoder_norm.weight", "decoder_norm.bias", "decoder_pred.weight"]
    names += ["decoder_pred.bias"] + [f"decoder_blocks.0.{n}" for n in _block_names(state)]
    return {"model": state | {name: torch.ones(2) for name in names}}


def dinov2_original(state: dict[str, Tensor], *, chunked: bool = False) -> dict[str, Tensor]:
    """The names of DINOv2's authors; training checkpoints have blocks in chunks."""
    renamed = {name.replace("reg_token", "register_tokens"): t for name, t in state.items()}
    if any("fc1_g" in name for name in renamed):
        renamed = packed(renamed, "w12")
        renamed = {name.replace("mlp.fc2", "mlp.w3"): tensor for name, tensor in renamed.items()}
    if not chunked:
        return renamed
    return {re.sub(r"^blocks\.(\d+)", r"blocks.0.\1", name): t for name, t in renamed.items()}


def packed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """Gates and hidden layers as one layer of this name."""
    found = dict(state)
    for gate in [each for each in found if "fc1_g" in each]:
        both = found.pop(gate), found.pop(gate.replace("fc1_g", "fc1_x"))
        found[gate.replace("fc1_g", name)] = torch.cat(both)
    return found


def dinov2_of_timm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of timm, whose tables of models with registers have no class row."""
    found = {name.replace("register_tokens", "reg_token"): t for name, t in state.items()}
    found = packed(found, "fc1")
    del found["mask_token"]
    if "reg_token" in found:
        found["cls_token"] = found["cls_token"] + found["pos_embed"][:, :1]
        found["pos_embed"] = found["pos_embed"][:, 1:]
    return found


def dinov3_original(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The names of DINOv3's authors: a key bias that a mask removes, and stored periods."""
    found = {name.replace("register_tokens", "storage_tokens"): t for name, t in state.items()}
    if any("fc1_g" in name for name in found):
        for old, new in (("fc1_g", "w1"), ("fc1_x", "w2"), ("mlp.fc2", "mlp.w3")):
            found = {name.replace(old, new): tensor for name, tensor in found.items()}
    found["rope_embed.periods"] = (100 ** (torch.arange(3) / 3)).bfloat16()
    for name in [name for name in found if name.endswith("qkv.bias")]:
        mask = torch.ones(3 * WIDTH)
        mask[WIDTH : 2 * WIDTH] = 0
        found[f"{name}_mask"] = mask
        found[name] = torch.where(mask > 0, found[name], 7)
    return found


def dinov3_of_timm(state: dict[str, Tensor], *, bias: bool) -> dict[str, Tensor]:
    """The names of timm's Eva: separate biases of queries and values, or none."""
    found = {name.replace("register_tokens", "reg_token"): t for name, t in state.items()}
    found = {re.sub(r"ls([12])\.gamma", r"gamma_\1", name): t for name, t in found.items()}
    del found["mask_token"]
    for name in [name for name in found if name.endswith("qkv.bias")]:
        q, _, v = found.pop(name).chunk(3)
        if bias:
            found |= {name.replace("qkv.bias", f"{p}_bias"): t for p, t in (("q", q), ("v", v))}
    return found


def vjepa(model: Any) -> dict[str, Any]:
    """A checkpoint of V-JEPA 2.1: parts for images and videos, norms of four levels, predictor."""
    found: dict[str, Tensor] = {}
    for name, tensor in model.encoder.state_dict().items():
        new = name.replace("embeddings.patch_embeddings.proj.", "patch_embed_img.proj.")
        new = new.replace("layer.", "blocks.").replace("layernorm.", "norms_block.3.")
        found[new.replace("attention.proj.", "attn.proj.")] = tensor
    for block in range(DEPTH):
        for end in ("weight", "bias"):
            names = [f"blocks.{block}.attention.{p}.{end}" for p in ("query", "key", "value")]
            found[f"blocks.{block}.attn.qkv.{end}"] = torch.cat([found.pop(n) for n in names])
    # The mark of images takes its share of the bias.
    found["img_mod_embed"] = torch.randn(1, 1, WIDTH)
    found["patch_embed_img.proj.bias"] = (
        found["patch_embed_img.proj.bias"] - found["img_mod_embed"].flatten()
    )
    found |= {
        f"norms_block.{n}.{end}": torch.ones(2) for n in range(3) for end in ("weight", "bias")
    }
    found |= {"patch_embed.proj.weight": torch.ones(WIDTH, 3, 2, 16, 16)}
    found |= {"patch_embed.proj.bias": torch.ones(2), "video_mod_embed": torch.ones(1, 1, WIDTH)}
    return {
        "ema_encoder": below("module.backbone.", found),
        "predictor": {"module.backbone.predictor_embed.weight": torch.ones(2)},
        "epoch": 1,
    }


def _block_names(state: dict[str, Tensor]) -> list[str]:
    return [n.removeprefix("blocks.0.") for n in state if n.startswith("blocks.0.")]
