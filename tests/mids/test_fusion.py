import torch

from ffaa.mids.fusion import AttentionBlock, DualCrossAttention


def tensors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_block_without_residual_is_normalised_attention():
    torch.manual_seed(0)
    block = AttentionBlock(16, 4).eval()
    query, source = tensors(2, 3, 16), tensors(2, 5, 16, seed=1)
    attended = block.cross_attn(query, source, source)[0]
    torch.testing.assert_close(block(query, source), block.norm(attended))


def test_residual_is_added_before_the_norm():
    torch.manual_seed(0)
    block = AttentionBlock(16, 4, residual=True).eval()
    x = tensors(2, 6, 16)
    torch.testing.assert_close(block(x, x), block.norm(block.cross_attn(x, x, x)[0] + x))


def test_ignored_tokens_change_nothing():
    torch.manual_seed(0)
    fusion = DualCrossAttention(16, 4).eval()
    text, last, previous = tensors(2, 7, 16), tensors(2, 5, 16, seed=1), tensors(2, 5, 16, seed=2)
    ignore = torch.zeros(2, 7, dtype=torch.bool)
    ignore[:, 4:] = True
    padded = fusion(text, last, previous, ignore)
    short = fusion(text[:, :4], last, previous)
    unmasked = fusion(text, last, previous)
    for one, other, free in zip(padded, short, unmasked, strict=True):
        assert one.shape == (2, 1, 16)
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        assert not torch.allclose(one, free, atol=1e-4)


def test_each_output_comes_from_its_own_layer():
    torch.manual_seed(0)
    fusion = DualCrossAttention(16, 4).eval()
    text, last, previous = tensors(2, 7, 16), tensors(2, 5, 16, seed=1), tensors(2, 5, 16, seed=2)
    before = fusion(text, last, previous)
    after = fusion(text, last, previous + tensors(2, 5, 16, seed=3))
    same = [torch.equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True, True, False, False]
