import pytest
import torch

from ffaa.mllm.precision import bf16_where_fast


@pytest.mark.parametrize(
    ("known", "gpu", "wanted", "found"),
    [
        ({"avx2": True, "avx512_bf16": False}, False, True, False),
        ({"avx2": True, "avx512_bf16": False}, True, True, True),
        ({"avx512_bf16": True}, False, True, True),
        ({"avx512_bf16": True}, False, False, False),
        ({"neon": True, "bf16": True}, False, True, True),
    ],
)
def test_bf16_needs_instructions_or_a_gpu(monkeypatch, known, gpu, wanted, found):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert bf16_where_fast(wanted) is found
