from itertools import pairwise

import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.nn.blocks import Block, attend
from midway.nn.causal import CausalConfig, CausalTransformer

SMALL = CausalConfig(width=12, depth=2, heads=3)


@pytest.mark.parametrize("autocast", [False, True])
def test_no_step_sees_the_future_and_every_step_sees_the_past(autocast: bool) -> None:
    network = CausalTransformer(SMALL, dim_in=5, dim_out=7, length=6)
    # At the usual deviation of 0.02 a past step changes too little to be seen in bfloat16.
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 6, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), torch.no_grad():
        before = network(x)
        assert before.shape == (2, 6, 7)
        for step in range(6):
            changed = x.clone()
            changed[:, step] += 1
            after = network(changed)
            assert torch.equal(after[:, :step], before[:, :step])
            # That step and all later ones differ.
            assert (after[:, step:] != before[:, step:]).any(-1).all()


def test_the_gradient_of_a_step_reaches_no_later_input() -> None:
    network = CausalTransformer(SMALL, dim_in=5, dim_out=7, length=6)
    x = torch.randn(1, 6, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0, 2].square().sum(), x)
    assert gradient[0, :3].abs().sum(-1).gt(0).all()
    assert not gradient[0, 3:].any()


def test_its_blocks_are_torchs_encoder_layer_with_a_causal_mask() -> None:
    ours = Block(12, 3, qkv_bias=True, norm_eps=1e-5, causal=True)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    with torch.no_grad():
        for parameter in ours.parameters():
            nn.init.normal_(parameter, std=0.3)
    state = ours.state_dict()
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        "linear1.weight": "mlp.fc1.weight",
        "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight",
        "linear2.bias": "mlp.fc2.bias",
        **{f"norm{i}.{kind}": f"norm{i}.{kind}" for i in (1, 2) for kind in ("weight", "bias")},
    }
    theirs.load_state_dict({name: state[own] for name, own in names.items()})
    x = torch.randn(2, 7, 12)
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(ours(x), theirs(x, src_mask=mask, is_causal=True))


def test_causal_attention_is_the_same_in_bfloat16_on_a_cpu() -> None:
    q, k, v = torch.randn(3, 2, 3, 9, 8)
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), causal=True)
    assert rounded.dtype == torch.bfloat16
    exact = attend(q, k, v, causal=True)
    torch.testing.assert_close(rounded.float(), exact, atol=0.03, rtol=0.03)


def test_equal_steps_differ_by_their_position() -> None:
    network = CausalTransformer(SMALL, dim_in=5, dim_out=7, length=6)
    out = network(torch.ones(1, 6, 5))[0]
    assert all((first - second).abs().max() > 1e-6 for first, second in pairwise(out))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(MidwayError, match="width 10 is not a multiple of heads 3"):
        CausalConfig(width=10, heads=3)
