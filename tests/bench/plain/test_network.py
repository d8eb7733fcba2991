"""The plain encoder drops branches as stochastic depth is defined."""

import torch
from torch import nn

from midway.bench.plain.network import attend_written_out, encode
from midway.models.encoders.vit import EncoderConfig, VisionTransformer


def test_the_plain_encoder_drops_branches_of_whole_samples_and_scales_the_others() -> None:
    config = EncoderConfig(
        image_size=(32, 32), patch_size=16, width=24, depth=2, heads=2, drop_path=0.5
    )
    vit = VisionTransformer(config)
    vit.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    nn.init.zeros_(vit.blocks[1].mlp.fc2.weight)
    images = torch.randn(32, 3, 32, 32)
    before, after = encode(vit.eval(), images, (1, 2), attend_written_out)
    again, dropped = encode(vit.train(), images, (1, 2), attend_written_out)
    assert torch.equal(again, before)
    is_dropped = (dropped == before).flatten(1).all(1)
    assert 0 < is_dropped.sum() < 32
    scaled = before + 2 * (after - before)
    torch.testing.assert_close(dropped[~is_dropped], scaled[~is_dropped])
