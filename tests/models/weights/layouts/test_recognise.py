"""The layout of a file is recognised, and every tensor that is not read is named."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from midway.errors import MidwayError
from midway.models.encoders.vjepa import VJepaConfig, VJepaEncoder
from midway.models.weights.files import read_weights
from midway.models.weights.load import open_foreign
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder
from tests.models.weights.layouts import published as made
from tests.models.weights.layouts.test_agreement import HINTS, STATES

HEAD = 8
"""Tensors of DINO's head."""
ENCODER = 4 + 12 * made.DEPTH + 2
"""Tensors of a ViT: two tokens, the patch embedding, the blocks, the norm."""
EXPECTED: dict[str, tuple[str, str, dict[str, int]]] = {
    "dino": ("ViT backbone", "", {}),
    "dino full": (
        "DINO, full checkpoint",
        "teacher.backbone",
        {"other encoders": ENCODER, "head": 2 * HEAD, "optimiser": 1, "centre": 1},
    ),
    "ibot": ("ViT backbone", "state_dict", {}),
    "ibot full": (
        "iBOT, full checkpoint",
        "teacher.backbone",
        {"other encoders": ENCODER + 1, "head": 2 * (HEAD + 2), "optimiser": 1, "centre": 2},
    ),
    "mae": ("MAE, encoder alone", "model", {}),
    "mae full": ("MAE, encoder and decoder", "model", {"decoder": 19, "mask token": 1}),
    "dinov2": ("DINOv2", "", {"mask token": 1}),
    "dinov2 training": ("DINOv2", "teacher.backbone", {"mask token": 1, "head": 2 * HEAD}),
    "dinov2 registers": ("DINOv2, with registers", "", {"mask token": 1}),
    "dinov2 timm": ("DINOv2, timm's names", "", {}),
    "dinov2 registers timm": ("DINOv2, with registers, timm's names", "", {}),
    "dinov3": ("DINOv3", "", {"mask token": 1, "positions of a fixed formula": 1}),
    "lingbot": ("DINOv3", "model.backbone", {"mask token": 1, "positions of a fixed formula": 1}),
    "dinov2 gated": ("DINOv2", "", {"mask token": 1}),
    "dinov2 gated timm": ("DINOv2, timm's names", "", {}),
    "dinov3 gated": ("DINOv3", "", {"mask token": 1, "positions of a fixed formula": 1}),
    "dinov3 gated timm": ("DINOv3, timm's names", "", {}),
    "dinov3 timm": ("DINOv3, timm's names", "", {}),
}


def saved(tmp_path: Any, layout: str) -> str:
    kind, wrap = STATES[layout]
    torch.save(wrap(made.with_timms_names(made.network(kind))), tmp_path / "net.pth")
    return str(tmp_path / "net.pth")


@pytest.mark.parametrize("layout", STATES)
def test_layout_place_and_all_that_is_left_out_are_named(tmp_path, caplog, layout):
    name, place, left_out = EXPECTED[layout]
    path = saved(tmp_path, layout)
    found = open_foreign(read_weights(path), "teacher", HINTS)
    assert (found.recognised.layout, found.place) == (name, place)
    assert {kind: len(names) for kind, names in found.recognised.left_out.items()} == left_out
    load_encoder(path, hints=HINTS)
    (line,) = caplog.messages[-1].splitlines() if left_out else [f"{name}; left out: "]
    assert f"{name}; " in line
    assert all(f"{count} of {kind} (" in line for kind, count in left_out.items())


def test_student_and_teacher_are_chosen_by_name(tmp_path):
    path = saved(tmp_path, "ibot full")
    teacher, student = (load_encoder(path, weights=w, hints=HINTS) for w in ("teacher", "student"))
    torch.testing.assert_close(student.pos_embed, teacher.pos_embed + 1)
    found = open_foreign(read_weights(path), "student", HINTS)
    assert (found.place, found.others) == ("student.module.backbone", ("teacher.backbone",))
    assert found.recognised.left_out["mask token"] == ["masked_embed"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("blocks.0.attn.relative_bias", r"1 unknown \(blocks.0.attn.relative_bias\)"),
        ("blocks.0.mlp.gate.weight", r"1 unknown \(blocks.0.mlp.gate.weight\).*timm:NAME"),
        ("neck.weight", r"1 unknown \(neck.weight\)"),
    ],
)
def test_an_unknown_tensor_beside_the_encoder_is_refused(tmp_path, extra, message):
    state = made.with_timms_names(made.network("vit"))
    torch.save(state | {extra: torch.ones(2)}, tmp_path / "net.pth")
    with pytest.raises(MidwayError, match=message):
        load_encoder(str(tmp_path / "net.pth"), hints=HINTS)


def test_an_unknown_tensor_outside_of_the_encoder_is_named(tmp_path, caplog):
    state = made.below("backbone.", made.with_timms_names(made.network("vit")))
    torch.save(state | {"neck.weight": torch.ones(2)}, tmp_path / "net.pth")
    load_encoder(str(tmp_path / "net.pth"), hints=HINTS)
    assert "left out: 1 of other parts (neck.weight);" in f"{caplog.text.strip()};"


def test_a_missing_tensor_is_refused_also_in_names_of_transformers(tmp_path):
    model = made.network("dinov2")
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = dict(read_weights(file).tensors)
    del tensors["encoder.layer.1.attention.attention.key.weight"]
    save_file(tensors, file)
    with pytest.raises(MidwayError, match=r"2 missing \(blocks.1.attn.qkv.*; 5 unknown"):
        load_encoder(str(file))


def test_the_parts_of_v_jepa_for_videos_are_left_out(tmp_path, caplog):
    config = VJepaConfig(image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2)
    state = dict(VJepaEncoder(config).state_dict())
    for end in ("weight", "bias"):
        state[f"norms_block.0.{end}"] = state[f"norms_block.1.{end}"] = state.pop(f"top_norm.{end}")
        state[f"patch_embed_img.proj.{end}"] = state.pop(f"patch_embed.proj.{end}")
    state["patch_embed_img.proj.weight"] = state["patch_embed_img.proj.weight"][:, :, None]
    state |= {"img_mod_embed": torch.zeros(1, 1, 24), "video_mod_embed": torch.zeros(1, 1, 24)}
    state |= {f"patch_embed.proj.{end}": torch.zeros(2) for end in ("weight", "bias")}
    predictor = {"predictor.module.backbone.predictor_embed.weight": torch.zeros(2)}
    path = tmp_path / "net.pt"
    torch.save(made.below("ema_encoder.module.backbone.", state) | predictor, path)
    assert load_encoder(str(path), hints=HINTS).kind == "vjepa"
    found = open_foreign(read_weights(path), "teacher", HINTS).recognised
    assert (found.layout, found.family.name) == ("V-JEPA 2.1, image encoder", "V-JEPA 2.1")
    counts = {kind: len(names) for kind, names in found.left_out.items()}
    assert counts == {"parts for videos": 3, "norms of lower levels": 2, "head": 1}


def test_rotary_positions_of_another_base_are_refused(tmp_path):
    state = made.dinov3_original(made.with_timms_names(made.network("dinov3")))
    state["rope_embed.periods"] = 2 * state["rope_embed.periods"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(MidwayError, match=r"net.pth: its rope_embed.periods are not those of base"):
        load_encoder(str(tmp_path / "net.pth"), hints=HINTS)


def test_heads_epsilon_and_colours_beside_the_weights_are_used(tmp_path):
    made.network("vit", layer_norm_eps=1e-3).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}'
    )
    config = load_encoder(str(tmp_path)).config
    assert (config.heads, config.norm_eps) == (made.HEADS, 1e-3)
    assert (config.mean, config.std) == ((0.5, 0.5, 0.5), (0.5, 0.25, 0.5))
    assert load_encoder(str(tmp_path), hints=ReleaseHints(encoder_heads=4)).config.heads == 4
    # timm writes both into one file.
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "config.json").write_text(
        '{"architecture": "vit", "num_attention_heads": 2, "pretrained_cfg": {"mean": [0, 0, 0]}}'
    )
    assert load_encoder(str(tmp_path)).config.mean == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json: cannot be read as JSON"),
        ('{"num_attention_heads": "x"}', "width 24 does not determine"),
        ('{"hidden_act": "quick_gelu"}', "config.json: hidden_act quick_gelu is not gelu"),
        ('{"num_attention_heads": 5}', "width 24 is not a multiple of heads 5"),
        ('{"num_attention_heads": 2, "layer_norm_eps": [1]}', "model.safetensors: .*norm_eps"),
        ('{"num_attention_heads": 2, "pretrained_cfg": {"std": [0, 1, 1]}}', "must be above 0"),
    ],
)
def test_damaged_configurations_beside_the_weights_are_one_line(tmp_path, text, message):
    made.network("vit").save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(MidwayError, match=message) as caught:
        load_encoder(str(tmp_path))
    assert "\n" not in str(caught.value)
