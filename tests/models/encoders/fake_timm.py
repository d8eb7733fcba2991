"""What the adapter uses of timm, with our small ViT inside."""

import sys
import types

import pytest
import torch
from torch import nn

from midway.models.encoders.vit import NORM_EPS, VisionTransformer
from tests.models.networks import ENCODER


class StandIn(nn.Module):
    """What the adapter uses of timm's VisionTransformer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        vit = VisionTransformer(ENCODER)
        for part in ("cls_token", "pos_embed", "patch_embed", "blocks", "norm"):
            setattr(self, part, getattr(vit, part))
        self.patch_embed.patch_size = (8, 8)
        self.patch_embed.img_size = (32, 32)
        for block in self.blocks:
            block.attn.num_heads = ENCODER.heads
        self.attn_pool, self.fc_norm = None, nn.Identity()
        self.embed_dim = ENCODER.width
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.4, 0.5)}
        self.inner = [vit]

    def forward_intermediates(
        self, x, indices, norm, output_fmt, intermediates_only, return_prefix_tokens=False
    ):
        assert (norm, intermediates_only) == (True, True)
        assert indices == sorted(indices)  # timm gives them in the order of its blocks
        levels = [index + 1 for index in indices]
        self.inner[0].norm = self.norm
        if output_fmt == "NCHW":
            return self.inner[0].maps(x, levels)
        assert (output_fmt, return_prefix_tokens) == ("NLC", True)
        tokens = self.inner[0].levels(x, levels)
        if self.cls_token is None:
            return [each[:, 1:] for each in tokens]
        registers = torch.full((len(x), 2, ENCODER.width), torch.nan)
        return [(each[:, 1:], torch.cat([each[:, :1], registers], 1)) for each in tokens]


class Pooling(StandIn):
    """One whose final norm is behind the mean, as timm's are with `global_pool="avg"`."""

    def __init__(self):
        super().__init__()
        self.attn_pool = nn.Linear(2, 2)  # other models have this one
        self.norm, self.fc_norm = nn.Identity(), nn.LayerNorm(ENCODER.width, eps=NORM_EPS)


class DropPath(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p


MODELS = {"vit_tiny": StandIn, "vit_tiny_avg": Pooling}


def install_timm(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool, int, bool]]:
    """Let `import timm` give the stand-in; what `create_model` is given is listed."""
    made = []

    def create_model(name, *, pretrained, num_classes, dynamic_img_size):
        made.append((name, pretrained, num_classes, dynamic_img_size))
        if name == "resnet":
            return nn.Linear(1, 1)
        if name not in MODELS:
            raise RuntimeError(f"Unknown model ({name})")
        return MODELS[name]()

    timm, layers = types.ModuleType("timm"), types.ModuleType("timm.layers")
    timm.create_model, layers.DropPath = create_model, DropPath
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setitem(sys.modules, "timm.layers", layers)
    return made
