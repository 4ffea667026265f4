"""The frozen text encoder's output for every answer, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ffaa.mids.model import MIDS
from ffaa.mids.tokens import AnswerTokens
from ffaa.mllm.mine import Mined, Three


class TextFeatures:
    """Features of the tokens of all answers, without padding, in half precision.

    folder: keeps them on disk instead of in memory, in a file named by a hash of the encoder and of what it reads, from
    which they are taken another time; a T5-base needs about 1 MB for three answers. one_answer: of the anchor alone.
    """

    def __init__(
        self,
        mids: MIDS,
        tokens: AnswerTokens,
        mined: Sequence[Mined],
        one_answer: bool = False,
        folder: Path | None = None,
        batch: int = 16,
    ):
        self.count = 1 if one_answer else 3
        self._place = {m.row: self.count * i for i, m in enumerate(mined)}
        answers = [a for m in mined for a in m.answers[: self.count]]
        read = [
            ids[mask.bool()]
            for start in range(0, len(answers), 512)
            for ids, mask in zip(*tokens(answers[start : start + 512]), strict=True)
        ]
        lengths = [len(ids) for ids in read]
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        shape = (int(self._starts[-1]), mids.config.dim)
        if folder is None:
            self._kept: np.ndarray = np.empty(shape, np.float16)
            self._fill(mids, tokens, answers, lengths, batch)
            return
        file = folder / f"{_hash(mids, read)}.npy"
        if not file.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            self._kept = np.lib.format.open_memmap(part, "w+", np.float16, shape)
            self._fill(mids, tokens, answers, lengths, batch)
            part.replace(file)
        self._kept = np.load(file, mmap_mode="r")

    def _fill(self, mids: MIDS, tokens: AnswerTokens, answers: Three, lengths: list[int], batch: int) -> None:
        device = mids.classifier.weight.device
        # Answers of about one length together: little padding.
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), 3 * batch):
            part = order[start : start + 3 * batch]
            ids, mask = (t.to(device) for t in tokens([answers[i] for i in part]))
            for i, features, k in zip(part, mids.encode_text(ids, mask), mask.bool(), strict=True):
                self._kept[self._starts[i] : self._starts[i + 1]] = features[k].half().cpu().numpy()

    def __call__(self, part: Sequence[Mined]) -> tuple[Tensor, Tensor]:
        """(features (A B, T, d) float32, mask (A B, T)) of some of the records, padded to the longest answer."""
        places = [self._place[m.row] + a for m in part for a in range(self.count)]
        found = [torch.from_numpy(self._kept[self._starts[i] : self._starts[i + 1]].astype(np.float32)) for i in places]
        mask = pad_sequence([torch.ones(len(f), dtype=torch.long) for f in found], batch_first=True)
        return pad_sequence(found, batch_first=True), mask


def _hash(mids: MIDS, read: Sequence[Tensor]) -> str:
    """Of the text encoder's weights and of the tokens of every answer, in order."""
    digest = hashlib.sha256()
    for name, value in sorted(mids.text_encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype}".encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    for ids in read:
        digest.update(len(ids).to_bytes(4, "big") + ids.numpy().tobytes())
    return digest.hexdigest()
