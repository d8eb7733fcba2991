from dataclasses import replace

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.embed import PatchEmbed
from midway.nn.mimetic import sincos_positions, start_whitened
from tests.models.networks import ENCODER

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
SMALL = EncoderConfig(image_size=(32, 48), patch_size=8, width=24, depth=4, heads=3)


def _parameters(config: EncoderConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in VisionTransformer(config).parameters())


def test_vit_s_and_vit_b_have_the_published_numbers_of_parameters() -> None:
    assert _parameters(EncoderConfig()) == 21_665_664
    assert _parameters(EncoderConfig(width=768, heads=12)) == 85_798_656


def test_keys_and_shapes_are_timms() -> None:
    state = VisionTransformer(EncoderConfig(depth=1)).state_dict()
    block = {
        "norm1.weight": (384,),
        "norm1.bias": (384,),
        "attn.qkv.weight": (1152, 384),
        "attn.qkv.bias": (1152,),
        "attn.proj.weight": (384, 384),
        "attn.proj.bias": (384,),
        "norm2.weight": (384,),
        "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384),
        "mlp.fc1.bias": (1536,),
        "mlp.fc2.weight": (384, 1536),
        "mlp.fc2.bias": (384,),
    }
    expected = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 197, 384),
        "patch_embed.proj.weight": (384, 3, 16, 16),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    } | {f"blocks.0.{name}": shape for name, shape in block.items()}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected


@pytest.mark.parametrize("num_registers", [0, 4])
def test_levels_hold_the_class_token_and_the_patches_at_any_size(num_registers: int) -> None:
    config = EncoderConfig(
        image_size=(32, 48), patch_size=8, width=24, depth=4, heads=3, num_registers=num_registers
    )
    encoder = VisionTransformer(config).eval()
    for height, width in ((32, 48), (16, 16), (64, 40)):
        levels = encoder.levels(torch.randn(2, 3, height, width), (4, 1))
        assert [tuple(x.shape) for x in levels] == [(2, 1 + height * width // 64, 24)] * 2


def test_levels_come_in_the_order_asked_and_with_the_final_norm() -> None:
    encoder = VisionTransformer(SMALL).eval()
    images = torch.randn(2, 3, 32, 48)
    top, low = encoder.levels(images, (4, 2))
    again_low, again_top = encoder.levels(images, (2, 4))
    assert torch.equal(top, again_top)
    assert torch.equal(low, again_low)
    torch.testing.assert_close(top.mean(-1), torch.zeros(2, 25), atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder(images), top[:, 0])


def test_registers_change_the_features() -> None:
    config = EncoderConfig(patch_size=8, image_size=(16, 16), width=24, depth=2, heads=3)
    plain = VisionTransformer(config)
    registered = VisionTransformer(EncoderConfig(**{**vars(config), "num_registers": 2}))
    registered.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(1, 3, 16, 16)
    assert not torch.allclose(plain.eval()(images), registered.eval()(images))


def test_drop_path_grows_linearly_from_zero() -> None:
    encoder = VisionTransformer(EncoderConfig(depth=3, drop_path=0.1))
    assert [block.get_submodule("drop_path").p for block in encoder.blocks] == [0.0, 0.05, 0.1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: VisionTransformer(SMALL).levels(torch.zeros(1, 3, 32, 48), (5,)), "levels 1 to 4"),
        (lambda: VisionTransformer(SMALL)(torch.zeros(1, 3, 30, 48)), "multiples of the patch"),
        (lambda: EncoderConfig(width=10, heads=3), "not a multiple of heads"),
        (lambda: EncoderConfig(image_size=(30, 32)), "not a multiple of patch_size"),
    ],
)
def test_what_does_not_fit_is_told(call, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        call()


def test_whitened_patches_are_there_from_the_start() -> None:
    encoder = VisionTransformer(replace(SMALL, whitened_patches=True))
    alone = PatchEmbed(SMALL.patch_size, SMALL.width)
    start_whitened(alone.proj)
    # The rotation is random, the gains are not.
    found, wanted = (
        torch.linalg.svdvals(patches.proj.weight.flatten(1))
        for patches in (encoder.patch_embed, alone)
    )
    torch.testing.assert_close(found, wanted)


def test_positions_of_sines_and_cosines_are_there_from_the_start() -> None:
    encoder = VisionTransformer(replace(SMALL, sincos_positions=True))
    assert torch.equal(encoder.pos_embed, sincos_positions((4, 6), 24))


def test_positions_of_sines_and_cosines_need_a_multiple_of_four() -> None:
    with pytest.raises(MidwayError, match="width 18 is not a multiple of 4"):
        EncoderConfig(width=18, heads=3, sincos_positions=True)


def test_maps_are_the_patches_of_the_levels_row_by_row():
    encoder = VisionTransformer(ENCODER).eval()
    assert (encoder.width, encoder.depth, encoder.stride) == (24, 4, 8)
    maps = encoder.maps(IMAGES, (4, 2))
    features = encoder.levels(IMAGES, (4, 2))
    for level_map, tokens in zip(maps, features, strict=True):
        assert level_map.shape == (2, 24, 3, 5)
        torch.testing.assert_close(level_map[1, :, 2, 3], tokens[1, 1 + 2 * 5 + 3])
    torch.testing.assert_close(encoder.maps(IMAGES, (-1,))[0], maps[0])
    with pytest.raises(MidwayError, match="levels 1 to 4"):
        encoder.maps(IMAGES, (5,))
    with pytest.raises(MidwayError, match="levels 1 to 4"):
        encoder.maps(IMAGES, (-5,))


def test_layers_are_the_embeddings_then_the_blocks_then_the_rest():
    encoder = VisionTransformer(ENCODER)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    embeddings = {"cls_token", "pos_embed"}
    embeddings |= {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    assert {name for name, layer in layers.items() if layer == 0} == embeddings
    for block in range(4):
        inside = {name for name in layers if name.startswith(f"blocks.{block}.")}
        assert {name for name, layer in layers.items() if layer == block + 1} == inside
    behind = {name for name, layer in layers.items() if layer == 5}
    assert behind == {"norm.weight", "norm.bias"}


def test_dropped_and_replaced_patches_run_through_the_blocks() -> None:
    vit = VisionTransformer(SMALL).eval()
    images = torch.randn(2, 3, 32, 32)
    # Without a change in between, the parts give the levels.
    grid = vit.grid(images)
    tokens = vit.with_positions(vit.patch_embed(images), grid)
    torch.testing.assert_close(vit.run_blocks(tokens, (1, -1))[1], vit.levels(images, (-1,))[0])
    # A dropped patch is not seen by the others.
    kept = vit.run_blocks(tokens[:, :-1], (-1,))[0]
    assert kept.shape[1] == tokens.shape[1] - 1
    assert not torch.allclose(kept, vit.levels(images, (-1,))[0][:, :-1])


@pytest.mark.parametrize("num_registers", [0, 2])
def test_the_top_attention_is_that_of_a_plain_forward_pass(num_registers: int) -> None:
    vit = VisionTransformer(replace(SMALL, num_registers=num_registers)).eval()
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    images = torch.randn(2, 3, 32, 48)
    seen = {}
    last = vit.blocks[-1].get_submodule("attn.qkv")
    last.register_forward_hook(lambda _, __, out: seen.update(qkv=out))
    (tokens,) = vit.levels(images, (-1,))
    found = vit.top_attention(images)
    torch.testing.assert_close(torch.cat([found.cls[:, None], found.patches], 1), tokens)
    # Column c of the fused projection: query, key or value, then head, then channel.
    q, k, _ = seen["qkv"].reshape(2, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
    first = 1 + num_registers
    torch.testing.assert_close(found.queries, q[:, :, first:])
    torch.testing.assert_close(found.keys, k[:, :, first:])
    attention = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1)
    torch.testing.assert_close(found.cls_attention, attention[:, :, 0, first:])


def test_layer_scale_multiplies_both_branches() -> None:
    config = replace(SMALL, layer_scale=True)
    plain, scaled = VisionTransformer(SMALL).eval(), VisionTransformer(config).eval()
    missing, _ = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert [*missing] == [f"blocks.{b}.ls{n}.gamma" for b in range(4) for n in (1, 2)]
    images = torch.randn(1, 3, 32, 48)
    torch.testing.assert_close(scaled(images), plain(images))
    # With branches of zero, the blocks are the identity.
    for name, parameter in scaled.named_parameters():
        if name.endswith("gamma"):
            parameter.data.zero_()
    torch.testing.assert_close(*scaled.levels(images, (1, 4)))


def test_colours_of_the_training_are_a_matter_of_the_encoder_alone() -> None:
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    plain, coloured = (
        VisionTransformer(replace(SMALL, **colours)).eval()
        for colours in ({}, {"mean": mean, "std": std})
    )
    coloured.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 32, 48)
    imagenet = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    own = (images * imagenet[1] + imagenet[0] - 0.5) / 0.5
    torch.testing.assert_close(coloured.maps(images, (4,)), plain.maps(own, (4,)))


def test_an_mlp_with_a_gate_multiplies_its_hidden_layer() -> None:
    encoder = VisionTransformer(replace(SMALL, swiglu=10)).eval()
    mlp = encoder.blocks[0].mlp
    assert mlp.fc1_g.weight.shape == mlp.fc1_x.weight.shape == (10, 24)
    x = torch.randn(3, 24)
    gate = torch.nn.functional.silu(mlp.fc1_g(x))
    torch.testing.assert_close(mlp(x), mlp.fc2(gate * mlp.fc1_x(x)))
    with pytest.raises(MidwayError, match="swiglu -1 is too small"):
        replace(SMALL, swiglu=-1)


ROTARY = replace(SMALL, positions="rotary", num_registers=2, width=24, heads=3)


def test_rotary_positions_serve_images_of_any_size_but_no_dropped_patches() -> None:
    encoder = VisionTransformer(ROTARY).eval()
    assert "pos_embed" not in encoder.state_dict()
    images = torch.randn(2, 3, 16, 40)
    (top,) = encoder.levels(images, (-1,))
    assert top.shape == (2, 1 + 10, 24)
    torch.testing.assert_close(encoder(images), top[:, 0])
    # Positions count: the features of a rolled image are not the rolled features.
    (rolled,) = encoder.maps(images.roll(8, dims=-1), (-1,))
    assert not torch.allclose(rolled, encoder.maps(images, (-1,))[0].roll(1, dims=-1), atol=1e-4)
    with pytest.raises(MidwayError, match="this method drops patches or reads attention"):
        encoder.run_blocks(encoder.embed(images)[:, :-1], (-1,))
    with pytest.raises(MidwayError, match="drops patches or reads attention"):
        encoder.top_attention(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": "rotary", "heads": 4}, "a multiple of 4 channels per head, not 6"),
        ({"positions": "rotary", "sincos_positions": True}, "and exclude sincos_positions"),
        ({"std": (0.5, 0.0, 0.5)}, "must be above 0"),
        ({"norm_eps": 0.0}, "must be above 0"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message) -> None:
    with pytest.raises(MidwayError, match=message):
        replace(SMALL, **change)
