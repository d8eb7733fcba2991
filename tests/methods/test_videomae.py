"""VideoMAE: the loss of transformers on copied weights, tubes, targets, costs, initial loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from midway.bench.costs import costs_of
from midway.data.views.render import example_clips
from midway.data.views.spec import draw_views
from midway.errors import MidwayError
from midway.methods.base import build_method
from midway.methods.videomae import VideoMae, VideoMaeConfig, VideoMaeDecoderConfig
from midway.models.encoders.videomae import VideoMaeEncoderConfig
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

TINY = VideoMaeConfig.tiny()


def tiny_method() -> VideoMae:
    """A method whose biases are not zero, so that a missing one is noticed."""
    torch.manual_seed(0)
    method = VideoMae(TINY)
    for name, parameter in method.named_parameters():
        if "bias" in name or "norm" in name:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    return method


def frames() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 4, 3, 64, 64)


def renamed(name: str) -> str:
    """The name in transformers of one of our parameters."""
    part, _, rest = name.partition(".")
    for ours, theirs in (
        ("blocks.", "encoder.layer." if part == "encoder" else "decoder_layers."),
        ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
        ("norm1.", "layernorm_before."),
        ("norm2.", "layernorm_after."),
        ("attn.proj.", "attention.output.dense."),
        ("attn.q_bias", "attention.attention.query.bias"),
        ("attn.v_bias", "attention.attention.value.bias"),
        ("mlp.fc1.", "intermediate.dense."),
        ("mlp.fc2.", "output.dense."),
    ):
        rest = rest.replace(ours, theirs)
    if part != "encoder":
        return name if not rest else f"{part}.{rest}"
    return f"videomae.{'layer' if rest.startswith('norm.') else ''}{rest}"


def as_theirs(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors by the names of transformers, which keeps queries, keys and values apart."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(".attn.qkv.weight"):
            place = renamed(name.replace("qkv.weight", "proj.")).replace("output.dense.", "")
            for kind, weight in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{place}attention.{kind}.weight"] = weight
        else:
            found[renamed(name)] = tensor[None, None] if name == "mask_token" else tensor
    return found


def test_loss_and_gradients_are_those_of_transformers_on_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    method, clip = tiny_method(), frames()
    encoder, decoder = TINY.encoder, TINY.decoder
    theirs = transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(
            image_size=encoder.image_size[0],
            patch_size=encoder.patch_size,
            num_frames=encoder.num_frames,
            tubelet_size=encoder.tubelet,
            hidden_size=encoder.width,
            num_hidden_layers=encoder.depth,
            num_attention_heads=encoder.heads,
            intermediate_size=4 * encoder.width,
            decoder_hidden_size=decoder.width,
            decoder_num_hidden_layers=decoder.depth,
            decoder_num_attention_heads=decoder.heads,
            decoder_intermediate_size=4 * decoder.width,
            layer_norm_eps=1e-6,
            use_mean_pooling=False,
        )
    )
    missing, unknown = theirs.load_state_dict(as_theirs(method.state_dict()), strict=False)
    assert not unknown
    assert not missing
    mask = method.draw_mask(clip)
    ours = method.reconstruction_loss(clip, mask)
    wanted = theirs(clip, bool_masked_pos=mask).loss
    assert_close(ours, wanted, rtol=1e-5, atol=0)
    ours.backward()
    wanted.backward()
    gradients = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    of_theirs = dict(theirs.named_parameters())
    assert len(as_theirs(gradients)) == len(of_theirs)
    for name, gradient in as_theirs(gradients).items():
        assert_close(gradient, of_theirs[name].grad, rtol=1e-3, atol=1e-6)


def test_a_tube_hides_the_same_places_in_every_slice() -> None:
    method = VideoMae(TINY)
    mask = method.draw_mask(frames()).unflatten(1, (2, 64))
    assert torch.equal(mask[:, 0], mask[:, 1])
    assert mask[:, 0].sum(1).tolist() == [57, 57]  # int(0.9 * 64)
    assert not torch.equal(mask[0], mask[1])


def test_targets_are_pixels_from_0_to_1_normalised_by_cuboid_and_colour() -> None:
    method, clip = tiny_method(), frames()
    mask = method.draw_mask(clip)
    # With a decoder that predicts zero, the loss is the mean square of the targets.
    torch.nn.init.zeros_(method.decoder.head.weight)
    torch.nn.init.zeros_(method.decoder.head.bias)
    found = method.reconstruction_loss(clip, mask).item()
    pixels = clip.double().numpy() * np.array(IMAGENET_STD)[:, None, None]
    pixels += np.array(IMAGENET_MEAN)[:, None, None]
    squares = []
    for b, place in mask.nonzero().tolist():
        t, row, column = place // 64, place % 64 // 8, place % 8
        cuboid = pixels[b, 2 * t : 2 * t + 2, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        for colour in range(3):
            values = cuboid[:, colour].ravel()
            normalised = (values - values.mean()) / (values.std(ddof=1) + 1e-6)
            squares.append((normalised**2).mean())
    assert found == pytest.approx(np.mean(squares), rel=1e-5)


def test_costs_are_those_of_table_9() -> None:
    found = costs_of(VideoMaeConfig())
    with torch.device("meta"):
        method = build_method(VideoMaeConfig())
        assert isinstance(method, VideoMae)
    assert found.multiply_adds == pytest.approx(11.54e9, rel=0.01)
    assert found.encoder_parameters == pytest.approx(21.88e6, rel=0.01)
    bridge, decoder = (
        sum(p.numel() for p in part.parameters())
        for part in (method.encoder_to_decoder, method.decoder)
    )
    assert bridge == pytest.approx(0.074e6, rel=0.01)
    assert decoder == pytest.approx(2.076e6, rel=0.01)


def test_the_first_loss_is_one_and_the_variance_of_the_head() -> None:
    torch.manual_seed(3)
    # The decoder's width and outputs decide: 1 + 2 * 192 / (192 + 1536).
    config = VideoMaeConfig(
        encoder=VideoMaeEncoderConfig(image_size=(64, 64), num_frames=4, depth=2),
        decoder=VideoMaeDecoderConfig(),
        mask_ratio=0.7,
    )
    method = VideoMae(config)
    loss = method.loss(example_clips(method.spec, 4)).loss
    assert loss.item() == pytest.approx(1.22, abs=0.02)


def test_frames_of_a_clip_are_cropped_alike_and_keep_their_colours() -> None:
    spec = VideoMae(TINY).spec
    views = draw_views(spec, 240, 320, np.random.default_rng(0))
    assert spec.num_frames == len(views.boxes) == 4
    assert len({tuple(box) for box in views.boxes.tolist()}) == 1
    assert not views.flip.any()
    assert not views.colour.jitter.any()
    _, _, height, width = views.windows[0]
    assert 6 / 7 - 0.02 <= width / height <= 7 / 6 + 0.02


def test_the_mask_token_has_no_weight_decay() -> None:
    method = VideoMae(TINY)
    free = [g for g in method.parameter_groups() if g.name.endswith("no_decay")]
    assert any(p is method.mask_token for group in free for p in group.parameters)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(MidwayError, match=r"mask_ratio = 1.0; give one that masks some"):
        replace(TINY, mask_ratio=1.0)
    with pytest.raises(MidwayError, match="num_frames 5: not a multiple of tubelet 2"):
        replace(TINY.encoder, num_frames=5)
    with pytest.raises(MidwayError, match=r"image_size \(60, 64\): not a multiple"):
        replace(TINY.encoder, image_size=(60, 64))
    with pytest.raises(MidwayError, match="give 65536 or less in all"):
        replace(TINY.encoder, image_size=(4096, 4096))
    with pytest.raises(MidwayError, match="decoder: width 64: not a multiple of 2 and of heads 5"):
        replace(TINY.decoder, heads=5)
