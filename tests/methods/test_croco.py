"""CroCo: the loss written out slowly, views, costs, initial loss, start from other networks."""

import cmath
from dataclasses import replace
from pathlib import Path

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
from midway.methods.croco import SIZES, Croco, CrocoConfig
from midway.models.encoders.croco import CrocoEncoderConfig
from midway.models.pair_encoders.croco import CrocoDecoderConfig

TINY = CrocoConfig.tiny()
SMALL = CrocoConfig(
    encoder=CrocoEncoderConfig(patch_size=4, width=16, depth=2, heads=2),
    decoder=CrocoDecoderConfig(encoder_width=16, width=8, depth=3, heads=1),
    image_size=(12, 16),
    mask_ratio=0.7,
)
Place = tuple[int, int]


def random_method(config: CrocoConfig) -> Croco:
    """A method whose biases and gains are not those of the start."""
    torch.manual_seed(0)
    method = Croco(config).double()
    for parameter in method.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return method


class Slow:
    """The network of section 5 of the paper's sheet, token by token, from the tensors alone."""

    def __init__(self, method: Croco) -> None:
        self.w = {
            name.partition(".")[2] or name: tensor for name, tensor in method.state_dict().items()
        }
        self.w |= {n: t for n, t in method.state_dict().items() if n.startswith("prediction_head")}

    def linear(self, x: Tensor, name: str) -> Tensor:
        return self.w[f"{name}.weight"] @ x + self.w[f"{name}.bias"]

    def norm(self, x: Tensor, name: str) -> Tensor:
        deviation = (x.var(unbiased=False) + 1e-6).sqrt()
        return (x - x.mean()) / deviation * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def turned(self, x: Tensor, place: Place) -> list[complex]:
        """The rotated head as complex numbers; its scalar product is the real part of a b*."""
        half, quarter = len(x) // 2, len(x) // 4
        return [
            complex(x[start + i], x[start + i + quarter])
            * cmath.exp(1j * at * 100 ** (-2 * i / half))
            for start, at in ((0, place[0]), (half, place[1]))
            for i in range(quarter)
        ]

    def attend(
        self, q: list[Tensor], k: list[Tensor], v: list[Tensor], at: list[Place], k_at: list[Place]
    ) -> list[Tensor]:
        """One head."""
        keys = [self.turned(each, place) for each, place in zip(k, k_at, strict=True)]
        mixed = []
        for query, place in zip(q, at, strict=True):
            a = self.turned(query, place)
            scores = [
                sum((x * y.conjugate()).real for x, y in zip(a, b, strict=True)) for b in keys
            ]
            weights = (torch.tensor(scores).double() / len(query) ** 0.5).softmax(0)
            mixed.append(sum(weight * value for weight, value in zip(weights, v, strict=True)))
        return mixed

    def heads(
        self, q: list[Tensor], k: list[Tensor], v: list[Tensor], places: list, count: int, name: str
    ) -> list[Tensor]:
        parts = [
            self.attend(*([x.chunk(count)[h] for x in tokens] for tokens in (q, k, v)), *places)
            for h in range(count)
        ]
        return [self.linear(torch.cat(each), f"{name}.proj") for each in zip(*parts, strict=True)]

    def self_attention(self, x: list[Tensor], at: list[Place], count: int, block: str) -> list:
        fused = [self.linear(self.norm(t, f"{block}.norm1"), f"{block}.attn.qkv") for t in x]
        q, k, v = zip(*(t.chunk(3) for t in fused), strict=True)
        added = self.heads(q, k, v, [at, at], count, f"{block}.attn")
        return [a + b for a, b in zip(x, added, strict=True)]

    def mlp(self, x: list[Tensor], block: str, norm: str) -> list[Tensor]:
        gelu = torch.nn.functional.gelu
        return [
            t
            + self.linear(
                gelu(self.linear(self.norm(t, f"{block}.{norm}"), f"{block}.mlp.fc1")),
                f"{block}.mlp.fc2",
            )
            for t in x
        ]

    def encode(self, patches: list[Tensor], at: list[Place]) -> list[Tensor]:
        kernel = self.w["patch_embed.proj.weight"].flatten(1)  # channel, row, column
        x = [kernel @ patch.flatten() + self.w["patch_embed.proj.bias"] for patch in patches]
        for block in range(SMALL.encoder.depth):
            name = f"enc_blocks.{block}"
            x = self.mlp(self.self_attention(x, at, SMALL.encoder.heads, name), name, "norm2")
        return [self.norm(t, "enc_norm") for t in x]

    def decode(self, x: list[Tensor], memory: list[Tensor], at: list[Place]) -> list[Tensor]:
        count = SMALL.decoder.heads
        for block in range(SMALL.decoder.depth):
            name = f"dec_blocks.{block}"
            x = self.self_attention(x, at, count, name)
            cross = f"{name}.cross_attn"
            seen = [self.norm(t, f"{name}.norm_y") for t in memory]
            q = [self.linear(self.norm(t, f"{name}.norm2"), f"{cross}.projq") for t in x]
            k, v = ([self.linear(t, f"{cross}.proj{kind}") for t in seen] for kind in "kv")
            added = self.heads(q, k, v, [at, at], count, cross)
            x = self.mlp([a + b for a, b in zip(x, added, strict=True)], name, "norm3")
        return [self.linear(self.norm(t, "dec_norm"), "prediction_head") for t in x]

    def loss(self, first: Tensor, second: Tensor, mask: Tensor) -> float:
        places = [(row, column) for row in range(3) for column in range(4)]
        cut = [
            [each[:, 4 * r : 4 * r + 4, 4 * c : 4 * c + 4] for r, c in places]
            for each in (first, second)
        ]
        kept = [i for i in range(12) if not mask[i]]
        seen = self.encode([cut[0][i] for i in kept], [places[i] for i in kept])
        x = [self.w["mask_token"].flatten() for _ in places]
        for i, token in zip(kept, seen, strict=True):
            x[i] = self.linear(token, "decoder_embed")
        memory = [self.linear(t, "decoder_embed") for t in self.encode(cut[1], places)]
        out = self.decode(x, memory, places)
        errors = []
        for i in range(12):
            if mask[i]:
                target = cut[0][i].permute(1, 2, 0).flatten()  # row, column, channel
                target = (target - target.mean()) / (target.var() + 1e-6).sqrt()
                errors.append((out[i] - target).square().mean().item())
        return float(np.mean(errors))


def test_the_loss_is_that_of_a_slow_loop_with_complex_numbers() -> None:
    method = random_method(SMALL)
    torch.manual_seed(1)
    first, second = torch.randn(2, 2, 3, 12, 16).double()
    mask = method.draw_mask(first)
    assert mask.sum(1).tolist() == [8, 8]  # int(0.7 * 12)
    slow = Slow(method)
    wanted = [slow.loss(*each) for each in zip(first, second, mask, strict=True)]
    found = method.completion_loss(first, second, mask).item()
    assert found == pytest.approx(np.mean(wanted), rel=1e-5)


def test_the_prediction_needs_the_second_frame_and_does_not_see_masked_patches() -> None:
    method = random_method(TINY)
    first, second = torch.randn(2, 3, 3, 64, 64).double()
    mask = method.draw_mask(first)
    predicted: list[Tensor] = []
    method.prediction_head.register_forward_hook(lambda *call: predicted.append(call[2]))
    # (batch, 64 patches) -> (batch, 1, 64, 64) pixels
    is_masked = mask.reshape(3, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    for frames in (
        (first, second),
        (torch.where(is_masked, torch.randn_like(first), first), second),
        (first, second.roll(1, dims=0)),
    ):
        method.completion_loss(*frames, mask)
    assert predicted[0].shape == (3, 57, 192)
    assert torch.equal(predicted[1], predicted[0])
    assert not torch.allclose(predicted[2], predicted[0])


def test_costs_and_sizes_are_those_of_table_9_and_of_the_published_networks() -> None:
    found = costs_of(CrocoConfig())
    assert found.multiply_adds == pytest.approx(6.85e9, rel=0.01)
    costs = {name: costs_of(config).multiply_adds / 1e9 for name, config in SIZES.items()}
    wanted = {"vits": 6.84, "vitb_small": 26.7, "vitb_base": 43.1, "vitl_base": 91.3}
    assert costs == pytest.approx(wanted, rel=0.002)
    assert found.encoder_parameters == pytest.approx(21.59e6, rel=0.01)
    decoders = {}
    with torch.device("meta"):
        for name, config in SIZES.items():
            method = build_method(config)
            assert isinstance(method, Croco)
            decoders[name] = sum(p.numel() for p in method.decoder.parameters()) / 1e6
            assert sum(p.numel() for p in method.encoder.parameters()) == pytest.approx(
                {384: 21.59e6, 768: 85.65e6, 1024: 303.1e6}[config.encoder.width], rel=0.01
            )
    wanted = {"vits": 7.20, "vitb_small": 34.0, "vitb_base": 114, "vitl_base": 114}
    assert decoders == pytest.approx(wanted, rel=0.01)


def test_the_first_loss_is_one_and_the_variance_of_the_head() -> None:
    torch.manual_seed(3)
    # The decoder's width and outputs decide: 1 + 2 * 192 / (192 + 768).
    encoder = CrocoEncoderConfig(width=96, depth=2, heads=3)
    decoder = CrocoDecoderConfig(encoder_width=96)
    method = Croco(replace(TINY, encoder=encoder, decoder=decoder, image_size=(96, 96)))
    loss = method.loss(example_clips(method.spec, 4)).loss
    assert loss.item() == pytest.approx(1.43, abs=0.05)


def test_both_crops_come_from_one_region_with_their_own_place_and_colours() -> None:
    spec = Croco(CrocoConfig()).spec
    rng = np.random.default_rng(0)
    drawn = [draw_views(spec, 720, 1280, rng) for _ in range(20)]
    for views in drawn:
        _, _, height, width = views.windows[0]
        assert abs(height - width) <= 1
        assert 0.19 < height * width / (720 * 1280) < 0.51
        # A region of 256 pixels after the host shrank it, and crops of 224 that need no resizing.
        assert views.boxes[:, 2:].tolist() == [[224, 224], [224, 224]]
        assert views.colour.jitter.all()
        assert not views.colour.grey.any()
        assert not views.flip.any()
    assert sum((v.boxes[0] != v.boxes[1]).any() for v in drawn) > 15
    assert all((v.colour.factors[0, :3] != v.colour.factors[1, :3]).all() for v in drawn)
    factors = np.stack([v.colour.factors for v in drawn])
    assert factors[..., :3].min() >= 0.6
    assert factors[..., :3].max() <= 1.4
    assert (factors[..., 3] == 0).all()


def test_health_tells_whether_the_second_frame_is_used() -> None:
    torch.manual_seed(4)
    method = Croco(TINY).eval()
    clips = example_clips(method.spec, 4)

    class Batch:
        @staticmethod
        def render(spec: object) -> object:
            return clips

    with torch.no_grad():
        for block in method.decoder.dec_blocks:
            block.cross_attn.proj.weight.zero_()
        assert_close(method.health(Batch())["loss_over_wrong_frame"], torch.tensor(1.0))


def test_a_run_starts_from_encoder_and_decoder_of_a_published_file(tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = Croco(TINY)
    # The width of a published file determines its number of heads.
    config = replace(
        TINY,
        encoder=replace(TINY.encoder, width=192),
        decoder=CrocoDecoderConfig(encoder_width=192, depth=3),
    )
    before, after = Croco(config), Croco(config)
    state = {n.removeprefix("encoder."): t for n, t in before.state_dict().items()}
    state = {n.removeprefix("decoder."): t for n, t in state.items()}
    path = tmp_path / "croco.pth"
    torch.save({"model": state, "croco_kwargs": {"enc_embed_dim": 192}}, path)
    after.start_from(str(path))
    for part in ("encoder", "decoder"):
        mine, theirs = (getattr(method, part).state_dict() for method in (after, before))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    with pytest.raises(MidwayError, match="its encoder has other sizes"):
        other.start_from(str(path))
    wider = replace(config, decoder=replace(config.decoder, depth=4))
    with pytest.raises(MidwayError, match=r"its pair encoder has other sizes \(dec_blocks"):
        Croco(wider).start_from(str(path))


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(MidwayError, match=r"mask_ratio = 0.0; give one that masks some"):
        replace(TINY, mask_ratio=0.0)
    with pytest.raises(MidwayError, match=r"image_size = \(60, 64\); give multiples of .* 8"):
        replace(TINY, image_size=(60, 64))
    with pytest.raises(MidwayError, match=r"crop_side = 1.5; give a fraction"):
        replace(TINY, crop_side=1.5)
    with pytest.raises(MidwayError, match=r"encoder_width = 95; give the encoder's width 96"):
        replace(TINY, decoder=replace(TINY.decoder, encoder_width=95))
    with pytest.raises(MidwayError, match=r"decoder: depth 2 is too small; give 3"):
        replace(TINY.decoder, depth=2)
    with pytest.raises(MidwayError, match=r"encoder: width 90 is not a multiple of 4 \* heads"):
        replace(TINY.encoder, width=90)
