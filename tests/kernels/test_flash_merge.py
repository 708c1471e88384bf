"""Tests for kernels/flash_merge.py: attention in two parts, merged by their log-sums, in fp64; and its gradients."""

from __future__ import annotations

import pytest
import torch

from minifleming.kernels import reference
from minifleming.kernels.flash_merge import by_segment, flash_merge_attention
from minifleming.kernels.segments import Segments
from tests.kernels.check import close, gradients, noise
from tests.kernels.test_attention import TREES, inputs

MORE = TREES | {"two groups and documents": ([5, 3, 7, 1, 9, 40, 2, 33], [-1, 0, 0, 0, -1, -1, 5, 5])}


@pytest.mark.parametrize("way", [flash_merge_attention, by_segment])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("H, K", [(4, 2), (3, 3), (7, 1)])
@pytest.mark.parametrize("tree", MORE.values(), ids=MORE)
def test_values_and_gradients(tree, H, K, dtype, way):
    """``by_segment`` runs on a GPU whose shared memory does not fit our kernel."""
    segments = Segments(*tree)
    above, *qkv = inputs(segments, H, K, 16, dtype)
    found = gradients(lambda *x: way(*x, segments), above, *qkv)
    wanted = gradients(lambda *x: reference.segment_attention(*x, segments), above.double(), *(x.double() for x in qkv))
    for mine, theirs in zip(found, wanted):
        assert mine.dtype == dtype
        if dtype == torch.float64:
            torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
        else:  # in bf16 each call's part is rounded before it is added
            close(mine, theirs, dtype, terms=4 * max(1, theirs.abs().max().item()))


def test_scores_far_apart():
    """If one part has all the weight, the other's is exactly 0, and nothing overflows."""
    segments = Segments([20, 9, 5], [-1, 0, 0])
    above, q, k, v = inputs(segments, 2, 2, 16, torch.float64, scale=40.0)
    found = gradients(lambda *x: flash_merge_attention(*x, segments), above, q, k, v)
    wanted = gradients(lambda *x: reference.segment_attention(*x, segments), above, q, k, v)
    for mine, theirs in zip(found, wanted):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_views_of_one_product():
    segments = Segments([6, 4, 3], [-1, 0, 0])
    product = noise(13, 8 * 16, dtype=torch.float64).unflatten(1, (8, 16))
    q, k, v = product.split([4, 2, 2], dim=1)
    assert torch.equal(flash_merge_attention(q, k, v, segments),
                       flash_merge_attention(q.contiguous(), k.contiguous(), v.contiguous(), segments))


def test_segments_are_checked():
    for lengths, reads in (([3, 0], [-1, -1]), ([3, 2], [-1, 1]), ([3, 2, 2], [-1, 0, 1]), ([2, 3, 2], [-1, -1, 0])):
        with pytest.raises(AssertionError):
            Segments(lengths, reads)
    assert Segments([4, 3, 2, 2], [-1, 0, 0, -1]).table().tolist() == [
        [0, 4, 0, 0, 4, 5], [4, 3, 0, 4, 7, 0], [7, 2, 0, 4, 9, 0], [9, 2, 0, 0, 11, 0]]
