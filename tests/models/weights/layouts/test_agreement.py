"""Published key layouts load without an unmatched tensor, and give transformers' features."""

import math
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder
from tests.models.weights.layouts import published as made

HINTS = ReleaseHints(encoder_heads=made.HEADS)
OTHER_SIDE = 48


def images(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def theirs(model: Any, x: Tensor, **options: Any) -> Tensor:
    """Patches of transformers' network after its final norm, without class and register tokens."""
    if "MAE" in type(model).__name__:
        # Its masking shuffles the patches; equal noise keeps their order.
        options["noise"] = torch.arange(x[0, 0].numel() // made.PATCH**2).expand(len(x), -1)
    with torch.no_grad():
        tokens = model(x, **options).last_hidden_state
    return tokens[:, -(x.shape[-2] * x.shape[-1]) // made.PATCH**2 :]


def ours(path: Any, x: Tensor) -> Tensor:
    encoder = load_encoder(str(path), hints=HINTS)
    with torch.no_grad():
        (found,) = encoder.maps(x, (-1,))
    return found.flatten(2).transpose(1, 2)


def agree(one: Tensor, two: Tensor) -> None:
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in made.KINDS if kind != "mae_full"])
def test_files_of_transformers_give_its_features_at_three_sizes(tmp_path, kind):
    model = made.network(kind)
    model.save_pretrained(tmp_path)
    options = {"interpolate_pos_encoding": True} if kind in ("vit", "mae") else {}
    for size in ((32, 32), (48, 48), (24, 56)):
        x = images(*size)
        agree(ours(tmp_path, x), theirs(model, x, **options))


def test_a_file_of_transformers_mae_gives_the_encoder_without_its_decoder(tmp_path, caplog):
    model = made.network("mae_full")
    model.save_pretrained(tmp_path)
    agree(ours(tmp_path, images(32, 32)), theirs_of_full_mae(model, images(32, 32)))
    assert "MAE, encoder and decoder, transformers' names" in caplog.text
    assert "of decoder (decoder.decoder_embed.bias, " in caplog.text


def theirs_of_full_mae(model: Any, x: Tensor) -> Tensor:
    model.config.mask_ratio = 0.0
    return theirs(model.vit, x, noise=torch.arange(16).expand(2, -1))


STATES = {
    "dino": ("vit", lambda s: s),
    "dino full": ("vit", lambda s: made.full(s, {"center": torch.zeros(1, 8)}, ibot=False)),
    "ibot": ("vit", lambda s: {"state_dict": s}),
    "ibot full": (
        "vit",
        lambda s: made.full(
            s, {"center": torch.zeros(1, 8), "center2": torch.zeros(1, 1, 8)}, ibot=True
        ),
    ),
    "mae": ("mae", lambda s: {"model": s}),
    "mae full": ("mae", made.mae_full),
    "dinov2": ("dinov2", made.dinov2_original),
    "dinov2 training": (
        "dinov2",
        lambda s: {
            "teacher": made.below("backbone.", made.dinov2_original(s, chunked=True))
            | made.below("dino_", made.dino_head(""))
            | made.below("ibot_", made.dino_head(""))
        },
    ),
    "dinov2 registers": ("dinov2_registers", made.dinov2_original),
    "dinov2 timm": ("dinov2", made.dinov2_of_timm),
    "dinov2 registers timm": ("dinov2_registers", made.dinov2_of_timm),
    "dinov3": ("dinov3", made.dinov3_original),
    "lingbot": ("dinov3", lambda s: {"model": made.below("backbone.", made.dinov3_original(s))}),
    "dinov2 gated": ("dinov2_gated", made.dinov2_original),
    "dinov2 gated timm": ("dinov2_gated", made.dinov2_of_timm),
    "dinov3 gated": ("dinov3_gated", made.dinov3_original),
    "dinov3 gated timm": ("dinov3_gated", lambda s: made.dinov3_of_timm(s, bias=True)),
    "dinov3 timm": ("dinov3", lambda s: made.dinov3_of_timm(s, bias=True)),
}


@pytest.mark.parametrize("layout", STATES)
def test_files_of_the_authors_and_of_timm_give_transformers_features(tmp_path, layout):
    kind, wrap = STATES[layout]
    model, path = made.network(kind), tmp_path / "net.pth"
    torch.save(wrap(made.with_timms_names(model)), path)
    agree(ours(path, images(32, 32)), theirs(model, images(32, 32)))
    # At another size, each layout interpolates its table as its authors do.
    x = images(OTHER_SIDE, OTHER_SIDE)
    agree(ours(path, x), theirs(resized(model, kind, layout), x))


def test_biases_that_timm_leaves_out_are_zero(tmp_path):
    model, path = made.network("dinov3", query_bias=False, value_bias=False), tmp_path / "net.pth"
    torch.save(made.dinov3_of_timm(made.with_timms_names(model), bias=False), path)
    agree(ours(path, images(32, 32)), theirs(model, images(32, 32)))


def resized(model: Any, kind: str, layout: str) -> Any:
    """The same network for larger images, its position table interpolated by a slow formula."""
    if "dinov3" in kind:
        return model
    other = larger(kind)
    state = model.state_dict()
    table = state["embeddings.position_embeddings"]
    rows = made.SIDE // made.PATCH
    if "registers" in layout or layout.endswith("timm"):
        matrix = antialiased(rows, OTHER_SIDE // made.PATCH)
    else:
        matrix = cubic(rows, OTHER_SIDE // made.PATCH, offset=0.0 if kind == "mae" else 0.1)
    patches = torch.einsum(
        "ir,jc,rcd->ijd", matrix, matrix, table[0, 1:].unflatten(0, (rows, rows))
    )
    state["embeddings.position_embeddings"] = torch.cat([table[0, :1], patches.flatten(0, 1)])[None]
    other.load_state_dict(state)
    return other


def larger(kind: str) -> Any:
    before = made.SIZES["image_size"]
    try:
        made.SIZES["image_size"] = OTHER_SIDE
        return made.network(kind)
    finally:
        made.SIZES["image_size"] = before


def kernel(x: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def cubic(old: int, new: int, *, offset: float) -> Tensor:
    """Weights of bicubic interpolation along one axis, with borders repeated."""
    matrix, scale = torch.zeros(new, old), (new + offset) / old
    for row in range(new):
        centre = (row + 0.5) / scale - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            matrix[row, min(max(tap, 0), old - 1)] += kernel(centre - tap, -0.75)
    return matrix


def antialiased(old: int, new: int) -> Tensor:
    """Weights with antialiasing, which for larger tables is another kernel, cut at the borders."""
    matrix, scale = torch.zeros(new, old), new / old
    for row in range(new):
        centre = (row + 0.5) / scale
        for column in range(old):
            matrix[row, column] = kernel(column + 0.5 - centre, -0.5)
    return matrix / matrix.sum(1, keepdim=True)


def test_v_jepa_2_1_gives_the_features_of_version_2_with_its_rotation_mended(tmp_path, monkeypatch):
    module = transformers.models.vjepa2.modeling_vjepa2
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        **{**made.SIZES, "hidden_size": made.WIDTH, "patch_size": 16, "mlp_ratio": 4},
        crop_size=256,
        frames_per_clip=1,
        tubelet_size=1,
        pred_hidden_size=12,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
    )
    model = transformers.VJEPA2Model(config).eval()
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1 if "norm" in name else 0, 0.2)
    torch.save(made.vjepa(model), tmp_path / "net.pt")
    # Version 2 repeats frequencies in an order that does not belong to its pairs of channels.
    monkeypatch.setattr(module, "rotate_queries_or_keys", turned)
    x = images(256, 256)
    with torch.no_grad():
        expected = model(x[:, None], skip_predictor=True).last_hidden_state
    agree(ours(tmp_path / "net.pt", x), expected)
    # Smaller images span the same rows and columns.
    x = images(128, 128)
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T * (15 / 7)
    monkeypatch.setattr(
        module.VJEPA2RopeAttention,
        "get_position_ids",
        lambda *_, **__: (torch.zeros(64), *places),
    )
    with torch.no_grad():
        expected = model(x[:, None], skip_predictor=True).last_hidden_state
    agree(ours(tmp_path / "net.pt", x), expected)


def turned(x: Tensor, pos: Tensor) -> Tensor:
    """Rotation of neighbouring channels as complex numbers."""
    half = x.shape[-1] // 2
    angles = pos[..., None] * 10000.0 ** (-torch.arange(half) / half)
    pairs = torch.view_as_complex(x.unflatten(-1, (half, 2)).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)
