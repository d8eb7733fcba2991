import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.nn.blocks import (
    Attention,
    Block,
    CrossAttention,
    DropPath,
    Gate,
    GatedBlock,
    attend,
    init_transformer,
)


def test_attention_equals_softmax_written_out() -> None:
    attention = Attention(12, 3, qkv_bias=True)
    x = torch.randn(2, 5, 12)
    q, k, v = attention.qkv(x).reshape(2, 5, 3, 3, 4).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 5, 12))
    torch.testing.assert_close(attention(x), expected)


def test_cross_attention_equals_torchs_multi_head_attention() -> None:
    ours = CrossAttention(12, 3)
    theirs = nn.MultiheadAttention(12, 3, bias=True, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(
            torch.cat([ours.query.weight, ours.key.weight, ours.value.weight])
        )
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.proj.state_dict())
    x, memory = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x, memory), theirs(x, memory, memory)[0])


def test_a_gate_of_one_is_the_plain_block_and_a_gate_of_zero_forgets_the_token() -> None:
    gated = GatedBlock(12, 3, qkv_bias=False, norm_eps=1e-5)
    plain = Block(12, 3, qkv_bias=False, norm_eps=1e-5)
    plain.load_state_dict(gated.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(gated(x, torch.ones_like(x)), plain(x))
    torch.testing.assert_close(gated(x), plain(x))
    attended = gated.attn(gated.norm1(x))
    expected = attended + gated.mlp(gated.norm2(attended))
    torch.testing.assert_close(gated(x, torch.zeros_like(x)), expected)


def test_gates_start_near_one_and_differ_by_token_and_channel() -> None:
    gate = Gate(12, norm_eps=1e-5)(torch.randn(2, 5, 12))
    assert gate.shape == (2, 5, 12)
    assert (gate > 0.9).all()
    assert (gate < 1).all()
    assert gate.std(dim=1).min() > 0


def test_drop_path_drops_whole_samples_and_keeps_the_mean() -> None:
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 3), lambda x: x)
    per_sample = out.flatten(1)
    assert ((per_sample == 0).all(1) | (per_sample == 1 / 0.75).all(1)).all()
    assert out.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("p", [0.5, 0.999999])
def test_a_dropped_branch_is_not_computed_and_takes_part_with_a_gradient_of_zero(p: float) -> None:
    x = torch.randn(8, 2, 3, requires_grad=True)
    layer, drop, sizes = torch.nn.Linear(3, 3), DropPath(p), []

    def branch(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return layer(x)

    torch.manual_seed(0)
    found = drop(x, branch)
    torch.manual_seed(0)
    keep = torch.rand(8, 1, 1) >= p
    assert sizes == [keep.sum()]
    inputs = [x, *layer.parameters()]
    gradients = torch.autograd.grad(found.square().sum(), inputs)
    expected = layer(x) * keep / (1 - p)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), inputs))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("num_wanted", [None, 1])
def test_a_block_that_every_sample_skips_changes_nothing(
    num_wanted: int | None, autocast: bool
) -> None:
    block = Block(12, 3, qkv_bias=True, norm_eps=1e-6, drop_path=0.999999)
    x = torch.randn(2, 5, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        out = block(x, num_wanted)
    assert torch.equal(out, x[:, :num_wanted])
    out.sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize(("p", "training"), [(0.0, True), (0.5, False)])
def test_drop_path_is_the_identity_without_chance_or_in_evaluation(
    p: float, training: bool
) -> None:
    x = torch.randn(8, 2, 3)
    assert DropPath(p).train(training)(x, lambda x: x) is x


def test_bfloat16_attention_on_a_cpu_stays_within_its_rounding_of_the_fused_kernel() -> None:
    q, k, v = torch.randn(3, 2, 3, 17, 8)
    exact = F.scaled_dot_product_attention(q, k, v)
    rounded = attend(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0.02)


def test_the_first_tokens_alone_are_what_they_are_among_all() -> None:
    block = Block(12, 3, qkv_bias=True, norm_eps=1e-6)
    x = torch.randn(2, 5, 12, requires_grad=True)
    torch.testing.assert_close(block(x, 2), block(x)[:, :2])
    (found,) = torch.autograd.grad(block(x, 1).square().sum(), x)
    (wanted,) = torch.autograd.grad(block(x)[:, :1].square().sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("std", [0.0, -0.02, float("nan"), float("inf"), 1e9])
def test_a_spread_of_weights_out_of_range_is_refused(std: float) -> None:
    with pytest.raises(MidwayError, match=r"init_std .*; give a number above 0"):
        init_transformer(nn.Linear(2, 2), std)
