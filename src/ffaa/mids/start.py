"""Where MIDS starts from: linear heads that were trained on its image encoder.

A fresh MIDS has to learn from some thousand pairs what the heads learnt from all photos. Started from them it says at
first what they say, and learns what the answers add to it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffaa.mids.label import NUM_CLASSES
from ffaa.mids.model import MIDS

_REST = 0.1  # of the other weights of a fresh classifier: they are noise at first
_CLS_LAST, _CLS_PREVIOUS = 0, 3  # places of the two image vectors among the six that the classifier reads


@torch.no_grad()
def side_by_side(heads: Sequence[nn.Linear]) -> nn.Linear:
    """N heads C -> 1 as one N C -> 1: the mean of their logits, for vectors that lie side by side (`Eyes`)."""
    all_of_them = nn.Linear(sum(head.in_features for head in heads), 1)
    all_of_them.weight.copy_(torch.cat([head.weight for head in heads], 1) / len(heads))
    all_of_them.bias.copy_(torch.stack([head.bias for head in heads]).mean(0))
    return all_of_them


@torch.no_grad()
def start_from_heads(mids: MIDS, last: nn.Linear, previous: nn.Linear, layers: tuple[Tensor, Tensor]) -> None:
    """Fill a fresh MIDS so that, whatever an answer says, its odds of a forgery are those of the heads' mean logit.

    last, previous: C -> 1, forgery logits read from the CLS vectors of the image encoder's last two layers.
    layers: what `encode_image` returns for some photos, (B, 1 + P, C) twice; how wide their vectors spread sets the
    scale. One channel carries each logit; the self-attention blocks start as plain LayerNorms, whose scale differs a
    little by photo, so the odds are near those of the heads, not equal.
    """
    mids.classifier.weight.mul_(_REST)
    nn.init.zeros_(mids.classifier.bias)
    for name, parameter in mids.se_attn.named_parameters():
        if "out_proj" in name:
            nn.init.zeros_(parameter)
    weights = mids.classifier.weight.view(NUM_CLASSES, -1, mids.config.dim)
    parts = (
        (_CLS_LAST, last, mids.projector_layer1, mids.cls_token_layer1, layers[0]),
        (_CLS_PREVIOUS, previous, mids.projector_layer2, mids.cls_token_layer2, layers[1]),
    )
    for place, head, projector, token, hidden in parts:
        projector.weight[0], projector.bias[0] = head.weight[0], head.bias[0]
        token.weight[0], token.bias[0] = 0, 0
        token.weight[0, 0] = 1
        vectors = token(projector(hidden[:, 0].to(projector.weight)))
        spread = vectors.std(1).mean() if len(mids.se_attn) else 1.0
        for label in range(NUM_CLASSES):  # Eq. 3: classes 2 and 3 are forged images
            weights[label, place, 0] = (1 if label >= 2 else -1) * spread / 4
