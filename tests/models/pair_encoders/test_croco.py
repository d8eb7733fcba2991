"""CroCo's decoder as a pair encoder: the layers of its maps, descriptions, published files."""

from pathlib import Path

import pytest
import torch

from midway.config import to_json
from midway.errors import MidwayError
from midway.models.encoders.croco import CrocoEncoder, CrocoEncoderConfig
from midway.models.pair_encoders.base import PACKAGE, PairEncoderSpec, recognise_pair
from midway.models.pair_encoders.croco import CrocoDecoder, CrocoDecoderConfig
from midway.models.weights.files import read_weights
from midway.models.weights.pair import build_pair_encoder
from midway.nn.rope import grid_positions
from midway.registry import available, find

CONFIG = CrocoDecoderConfig(encoder_width=24, width=16, depth=4, heads=2)


def decoder(config: CrocoDecoderConfig = CONFIG) -> CrocoDecoder:
    torch.manual_seed(0)
    return CrocoDecoder(config)


@pytest.mark.parametrize(
    ("depth", "levels", "layers"),
    [
        (12, (-1,), (4, 8, 12)),
        (8, (-2, -1), (2, 5, 8)),
        (24, (-1,), (8, 16, 24)),
        (3, (-1,), (1, 2, 3)),
        (4, (-1,), (2, 3, 4)),
    ],
)
def test_maps_are_evenly_spaced_as_in_the_published_code(
    depth: int, levels: tuple, layers: tuple
) -> None:
    # Of encoder and decoder in one row, steps of 3, 4 and 8 for 8, 12 and 24 layers.
    config = CrocoDecoderConfig(encoder_width=8, width=8, depth=depth, heads=1)
    with torch.device("meta"):
        found = CrocoDecoder(config)
    assert (found.levels, found.layers) == (levels, layers)


def test_the_four_maps_are_the_encoders_and_three_layers_of_the_decoder() -> None:
    net = decoder()
    source, target = torch.randn(2, 3, 24, 4, 6)
    maps = net.maps((source,), (target,))
    tokens, memory = (net.decoder_embed(x.flatten(2).transpose(1, 2)) for x in (source, target))
    layers = net(tokens, memory, grid_positions((4, 6), source.device))
    assert torch.equal(maps[0], source)
    for each, number in zip(maps[1:], (2, 3, 4), strict=True):
        assert torch.equal(each.flatten(2).transpose(1, 2), layers[number - 1])
    assert tuple(each.shape[1] for each in maps) == net.widths
    # The last layer alone is normalised.
    assert torch.allclose(layers[-1].mean(-1), torch.zeros(3, 24), atol=1e-5)
    assert not torch.allclose(layers[-2].mean(-1), torch.zeros(3, 24), atol=1e-2)


def test_all_kinds_are_found_by_file_and_built_from_their_descriptions() -> None:
    assert available(PACKAGE) == ("croco",)
    assert find(PACKAGE, "croco").PAIR_ENCODER.kind == "croco"
    again = PairEncoderSpec(kind="croco", config=to_json(CONFIG)).build(where="test")
    again.load_state_dict(decoder().state_dict())
    assert again.config == CONFIG
    with pytest.raises(MidwayError, match=r"net.ckpt: pair_encoders: no 'vgg'; there are croco"):
        PairEncoderSpec(kind="vgg", config={}).build(where="net.ckpt")


def test_a_published_file_gives_the_decoder_and_every_other_name_is_refused(
    tmp_path: Path,
) -> None:
    config = CrocoDecoderConfig(encoder_width=192, width=192, depth=3)
    encoder = CrocoEncoder(CrocoEncoderConfig(width=192, depth=1, heads=3))
    state = encoder.state_dict() | decoder(config).state_dict()
    state |= {"mask_token": torch.ones(1, 1, 192), "prediction_head.bias": torch.ones(768)}
    path = tmp_path / "croco.pth"
    torch.save({"model": state, "croco_kwargs": {}}, path)
    found = build_pair_encoder(read_weights(path))
    assert found is not None
    assert found.config == config
    mine, theirs = found.state_dict(), decoder(config).state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    fresh = build_pair_encoder(read_weights(path), untrained=True)
    assert fresh is not None
    assert not torch.equal(
        fresh.state_dict()["decoder_embed.weight"], theirs["decoder_embed.weight"]
    )
    torch.save({"model": state | {"dec_blocks.0.norm9.bias": torch.ones(192)}}, path)
    with pytest.raises(MidwayError, match=r"its croco pair encoder.*dec_blocks\.0\.norm9\.bias"):
        build_pair_encoder(read_weights(path))
    del state["dec_norm.bias"]
    torch.save({"model": state}, path)
    with pytest.raises(MidwayError, match=r"dec_norm\.bias"):
        build_pair_encoder(read_weights(path))


def test_heads_follow_from_published_widths_only(tmp_path: Path) -> None:
    small = CrocoDecoderConfig(encoder_width=8, width=512, depth=3, heads=16)
    with torch.device("meta"):
        found = recognise_pair(CrocoDecoder(small).state_dict())
    assert found is not None
    assert found[0].config["heads"] == 16
    assert recognise_pair({"decoder_embed.weight": torch.zeros(8, 8)}) is None
    with pytest.raises(MidwayError, match="width 16 does not determine"):
        recognise_pair(decoder().state_dict())
