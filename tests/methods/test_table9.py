"""Costs and sizes of table 9: multiply-adds of a sample, forward; parameters of the encoder."""

import pytest
import torch

from midway.bench.costs import costs_of
from midway.methods.base import MethodConfig, build_method
from midway.methods.croco import CrocoConfig
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig
from midway.methods.ibot import IbotConfig
from midway.methods.midway import MidwayConfig
from midway.methods.videomae import VideoMaeConfig

from .counting import left_out

# Each global and local crop of a pair; at 3 levels, in both orders, nothing reads what the midway
# path makes of the frames' tokens.
PAIR = 8 * left_out(197) + 16 * left_out(37)
MIDWAY_PATH = 6 * left_out(404, wanted=10, width=192)
# iBOT's head on all tokens: of the student's crops ours has 12 class tokens and 2 x 98 patches;
# of the teacher's 2 x 197 tokens all are projected, and 2 + 2 x 98 + 2 means meet prototypes.
PROJECTION = 384 * 2048 + 2048 * 2048 + 2048 * 256
PROTOTYPES = 256 * 8192
TOKENS = 2 * 197 + 10 * 37
IBOT = 10 * left_out(37) + (TOKENS - 208) * (PROJECTION + PROTOTYPES) + (2 * 197 - 200) * PROTOTYPES
# Per frame three masked crops and six local ones of 112 pixels; the teacher's tokens are all read.
CLIP = 8 * (3 * left_out(197) + 6 * left_out(50))
# The two frames by student and teacher, whose class tokens the dynamics read.
FRAMES = 4 * left_out(197)
ROWS = [
    # Configuration, giga multiply-adds, what ours leaves out of them, millions of parameters.
    pytest.param(DinoConfig(), 50.26, PAIR, 21.666, id="dino"),
    pytest.param(DoraConfig(), 201.7, CLIP, 21.666, id="dora"),
    pytest.param(DynamoConfig(), 68.66, PAIR + FRAMES, 21.666, id="dynamo"),
    pytest.param(IbotConfig(), 35.29, IBOT, 21.666, id="ibot"),
    pytest.param(MidwayConfig(), 91.5, PAIR + MIDWAY_PATH, 21.666, id="midway"),
    pytest.param(VideoMaeConfig(), 11.54, 0, 21.880, id="videomae"),
    pytest.param(CrocoConfig(), 6.85, 0, 21.590, id="croco"),
]


@pytest.mark.parametrize(("config", "cost", "missing", "size"), ROWS)
def test_multiply_adds_and_parameters_are_the_published_ones(
    config: MethodConfig, cost: float, missing: int, size: float
) -> None:
    assert costs_of(config).multiply_adds + missing == pytest.approx(cost * 1e9, rel=0.002)
    with torch.device("meta"):
        encoder = build_method(config).encoders["student"]
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(size * 1e6, rel=1e-4)
