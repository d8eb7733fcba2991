import pytest
import torch
from torch import Tensor

from midway.nn.losses.sinkhorn import sinkhorn_knopp
from midway.nn.objects import attended_prototypes, mask_images, object_masks, refined_prototypes

BATCH, HEADS, PATCHES, DIM = 2, 4, 6, 5
HEADS_CHOSEN = torch.tensor([3, 0, 2])


def _joined(x: Tensor) -> Tensor:
    """(heads, patches, head_dim) -> (patches, heads * head_dim), head after head."""
    return torch.cat(list(x), dim=-1)


def test_prototypes_are_queries_weighted_by_attention_one_for_each_head() -> None:
    queries = torch.randn(BATCH, HEADS, PATCHES, DIM)
    attention = torch.rand(BATCH, HEADS, PATCHES)
    found = attended_prototypes(queries, attention, HEADS_CHOSEN)
    assert found.shape == (BATCH, 3, HEADS * DIM)
    for b in range(BATCH):
        for place, head in enumerate(HEADS_CHOSEN.tolist()):
            rows = _joined(queries[b])
            wanted = sum(attention[b, head, n] * rows[n] for n in range(PATCHES))
            torch.testing.assert_close(found[b, place], wanted)


def test_refined_prototypes_are_sums_of_assigned_unit_patches() -> None:
    patches, prototypes = torch.randn(BATCH, PATCHES, DIM), torch.randn(BATCH, 3, DIM)
    found = refined_prototypes(patches, prototypes, temperature=0.05, rounds=30)
    for b in range(BATCH):
        unit = torch.stack([row / row.norm() for row in patches[b]])
        similarity = torch.tensor([[row @ p for p in prototypes[b]] for row in unit])
        shares = sinkhorn_knopp(similarity / 0.05, rounds=30)
        for j in range(3):
            wanted = sum(shares[n, j] * unit[n] for n in range(PATCHES))
            torch.testing.assert_close(found[b, j], wanted)


@pytest.mark.parametrize("threshold_over", ["image", "batch"])
def test_masks_keep_the_patches_above_the_mean_weight(threshold_over: str) -> None:
    prototypes = 3 * torch.randn(BATCH, 3, HEADS * DIM)
    keys = torch.randn(4, BATCH, HEADS, PATCHES, DIM)
    found = object_masks(prototypes, keys, threshold_over=threshold_over)
    assert found.shape == (3, 4, BATCH, PATCHES)
    for j in range(3):
        for t in range(4):
            weights = []
            for b in range(BATCH):
                rows = _joined(keys[t, b])
                scores = torch.tensor([prototypes[b, j] @ row for row in rows])
                each = (scores / (HEADS * DIM) ** 0.5).softmax(0)
                weights.append(each / each.square().sum().sqrt())
            mean = torch.stack(weights).mean()
            for b, each in enumerate(weights):
                limit = each.mean() if threshold_over == "image" else mean
                assert found[j, t, b].tolist() == (each > limit).tolist()


def test_a_mask_of_an_image_does_not_depend_on_the_others_of_its_batch() -> None:
    prototypes = torch.randn(BATCH, 3, HEADS * DIM)
    keys = torch.randn(4, BATCH, HEADS, PATCHES, DIM)
    both = object_masks(prototypes, keys, threshold_over="image")
    alone = object_masks(prototypes[:1], keys[:, :1], threshold_over="image")
    assert torch.equal(both[:, :, :1], alone)


def test_masked_images_are_zero_outside_the_patches() -> None:
    images = torch.randn(2, 3, 4, 6)
    masks = torch.tensor([[True, False, False, False, True, True], [False] * 6])
    found = mask_images(images, masks, patch_size=2)
    wanted = torch.zeros(2, 3, 4, 6)
    wanted[0, :, 0:2, 0:2] = images[0, :, 0:2, 0:2]
    wanted[0, :, 2:4, 2:6] = images[0, :, 2:4, 2:6]
    assert torch.equal(found, wanted)


def test_nothing_is_rounded_by_autocast() -> None:
    queries = torch.randn(BATCH, HEADS, PATCHES, DIM)
    attention = torch.rand(BATCH, HEADS, PATCHES)
    exact = attended_prototypes(queries, attention, HEADS_CHOSEN)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(attended_prototypes(queries, attention, HEADS_CHOSEN), exact)
