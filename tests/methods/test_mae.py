import math
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from midway.errors import MidwayError
from midway.methods.mae import DecoderConfig, Mae, MaeConfig
from midway.models.encoders.vit import EncoderConfig
from midway.nn.masking import random_mask

SMALL = EncoderConfig(image_size=(32, 48), patch_size=8, width=24, depth=2, heads=2, drop_path=0.0)
CONFIG = MaeConfig(encoder=SMALL, decoder=DecoderConfig(width=16, depth=2, heads=2))
PATCHES = 24


@pytest.fixture
def transformers() -> ModuleType:
    return pytest.importorskip("transformers", reason="the independent MAE is transformers'")


def _copy_block(theirs: nn.Module, ours: nn.Module) -> None:
    parts = [theirs.attention.q_proj, theirs.attention.k_proj, theirs.attention.v_proj]
    pairs = [
        (ours.attn.proj, theirs.attention.o_proj),
        (ours.norm1, theirs.layernorm_before),
        (ours.norm2, theirs.layernorm_after),
        (ours.mlp.fc1, theirs.mlp.fc1),
        (ours.mlp.fc2, theirs.mlp.fc2),
    ]
    for name in ("weight", "bias"):
        stacked = torch.cat([getattr(part, name) for part in parts])
        getattr(ours.attn.qkv, name).copy_(stacked)
        for mine, other in pairs:
            getattr(mine, name).copy_(getattr(other, name))


@torch.no_grad()
def _copy(theirs: nn.Module, ours: Mae) -> None:
    vit, decoder = theirs.vit, theirs.decoder
    ours.encoder.cls_token.copy_(vit.embeddings.cls_token)
    ours.decoder.mask_token.copy_(decoder.mask_token[0])
    pairs = [
        (ours.encoder.patch_embed.proj, vit.embeddings.patch_embeddings.projection),
        (ours.encoder.norm, vit.layernorm),
        (ours.decoder.embed, decoder.decoder_embed),
        (ours.decoder.norm, decoder.decoder_norm),
        (ours.decoder.predict, decoder.decoder_pred),
    ]
    for mine, other in pairs:
        mine.load_state_dict(other.state_dict())
    for mine, other in zip(ours.encoder.blocks, vit.layers, strict=True):
        _copy_block(other, mine)
    for mine, other in zip(ours.decoder.blocks, decoder.decoder_layers, strict=True):
        _copy_block(other, mine)


def test_loss_and_gradients_are_those_of_transformers(transformers: ModuleType) -> None:
    torch.manual_seed(0)
    config = transformers.ViTMAEConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=64,
        mask_ratio=0.75,
        norm_pix_loss=True,
        layer_norm_eps=1e-6,
    )
    theirs = transformers.ViTMAEForPreTraining(config)
    ours = Mae(replace(CONFIG, encoder=replace(SMALL, image_size=(32, 32))))
    _copy(theirs, ours)
    with torch.no_grad():
        # Its tables are zeros without a checkpoint; tests/nn/test_positions.py checks ours.
        theirs.vit.embeddings.position_embeddings.copy_(ours.encoder.pos_embed)
        theirs.decoder.decoder_pos_embed.copy_(ours.decoder.positions)
    images, noise = torch.randn(3, 3, 32, 32), torch.rand(3, 16)
    # The patches with the least noise are kept.
    mask = noise.argsort(1).argsort(1) >= 4
    loss, wanted = ours.reconstruction_loss(images, mask), theirs(images, noise=noise).loss
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    wanted.backward()
    # Gradients of theirs take the places of the weights, so that one copy serves both.
    for parameter in theirs.parameters():
        if parameter.grad is not None:
            parameter.data = parameter.grad
    gradients = Mae(ours.config)
    _copy(theirs, gradients)
    found, expected = dict(ours.named_parameters()), dict(gradients.named_parameters())
    for name, parameter in found.items():
        if parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, expected[name].data)


def test_the_encoder_does_not_see_masked_patches() -> None:
    method, mask = Mae(CONFIG), random_mask(2, PATCHES, 0.75)
    seen: list[Tensor] = []
    method.encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 32, 48)
    method.reconstruction_loss(images, mask)
    # Pixels of masked patches, row by row.
    pixels = mask.unflatten(1, (4, 6)).repeat_interleave(8, 1).repeat_interleave(8, 2)
    changed = torch.where(pixels[:, None], torch.randn_like(images), images)
    method.reconstruction_loss(changed, mask)
    assert seen[0].shape == (2, 1 + PATCHES // 4, 24)
    assert torch.equal(*seen)


def test_positions_are_fixed_and_stored_in_the_encoder() -> None:
    method = Mae(CONFIG)
    assert "encoder.pos_embed" in method.state_dict()
    assert not method.encoder.pos_embed.requires_grad
    listed = [id(p) for group in method.parameter_groups() for p in group.parameters]
    assert id(method.encoder.pos_embed) not in listed


def test_weights_start_by_xaviers_rule_and_tokens_small() -> None:
    torch.manual_seed(0)
    method = Mae(MaeConfig())
    fused = method.encoder.blocks[0].attn.qkv.weight
    assert fused.abs().max().item() == pytest.approx(math.sqrt(6 / (384 + 3 * 384)), rel=1e-3)
    patches = method.encoder.patch_embed.proj.weight
    assert patches.abs().max().item() == pytest.approx(math.sqrt(6 / (384 + 768)), rel=1e-3)
    for token in (method.encoder.cls_token, method.decoder.mask_token):
        assert token.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("width", "depth", "gmac", "start"),
    # Of BASELINES; the loss at the start is 1 plus the variance of the untrained prediction.
    [(192, 4, 1.58, 1.39), (256, 8, 2.58, 1.5), (512, 8, 6.51, 1.75)],
)
def test_cost_and_loss_at_the_start_are_those_of_the_decoder(
    width: int, depth: int, gmac: float, start: float
) -> None:
    config = MaeConfig(decoder=DecoderConfig(width=width, depth=depth, heads=width // 32))
    torch.manual_seed(0)
    method = Mae(config)
    images, mask = torch.randn(2, 3, 224, 224), random_mask(2, 196, 0.75)
    with torch.no_grad():
        loss = method.reconstruction_loss(images, mask)
    assert loss.item() == pytest.approx(start, abs=0.06)
    # Linear layers of a CPU are not torch's, which the counter knows.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        Mae(config).reconstruction_loss(images.to("meta"), mask.to("meta"))
    assert counter.get_total_flops() / 2 / len(images) / 1e9 == pytest.approx(gmac, rel=0.01)


def test_the_default_is_the_decoder_of_256_in_8_blocks_and_a_vit_s() -> None:
    with torch.device("meta"):
        method = Mae(MaeConfig())
    assert method.config.decoder == DecoderConfig(width=256, depth=8, heads=8)
    encoder = sum(p.numel() for p in method.encoder.parameters())
    assert encoder == pytest.approx(21.666e6, rel=1e-4)


def test_registers_are_seen_by_all_patches_and_reconstruct_nothing() -> None:
    method = Mae(replace(CONFIG, encoder=replace(SMALL, num_registers=3)))
    loss = method.reconstruction_loss(torch.randn(2, 3, 32, 48), random_mask(2, PATCHES, 0.75))
    loss.backward()
    assert method.encoder.reg_token.grad is not None
    assert method.encoder.reg_token.grad.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio = 0.0"),
        ({"mask_ratio": 1.0}, "mask_ratio = 1.0"),
        ({"encoder": replace(SMALL, width=18)}, "encoder.width = 18; .*multiple of 4"),
        ({"decoder": DecoderConfig(width=18, heads=2)}, "decoder.width = 18; .*multiple of 4"),
    ],
)
def test_a_setting_out_of_range_is_refused(change: dict, message: str) -> None:
    with pytest.raises(MidwayError, match=f"method.{message}"):
        replace(CONFIG, **change)


@pytest.mark.parametrize("sizes", [{"width": 0}, {"depth": 0}, {"heads": 0}, {"width": 30}])
def test_a_decoder_of_impossible_sizes_is_refused(sizes: dict) -> None:
    with pytest.raises(MidwayError, match="decoder"):
        DecoderConfig(**sizes)


def test_tokens_and_weights_are_decayed_and_vectors_are_not() -> None:
    method = Mae(CONFIG)
    groups = {group.name: {id(p) for p in group.parameters} for group in method.parameter_groups()}
    for decayed in (method.encoder.cls_token, method.decoder.mask_token):
        assert id(decayed) in groups["all"]
    for free in (method.decoder.norm.weight, method.decoder.predict.bias):
        assert id(free) in groups["all/no_decay"]
