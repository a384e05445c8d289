"""The patchwise contrastive loss of CUT (Park et al. 2020, arXiv:2007.15651, eqs. 2-4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.losses.precision import full, full_float32, no_autocast


def patch_nce(q: Tensor, k: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy of finding patch i of ``k`` by patch i of ``q`` among the patches of a picture.

    ``q``, ``k`` [N, P, C]: unit vectors of P places in N pictures. Mean over both; log P when all
    are equal. Negatives never come from another picture; ``k`` gets no gradient. In full precision,
    also inside autocast: the logits reach 1 / ``temperature``.

    The authors' code has one more logit, the masked diagonal of the negatives, -10 / temperature;
    its share, e^-128 at most, is 0 in float32 and left out.
    """
    q, k = full(q), full(k.detach())
    with no_autocast(q.device), full_float32():
        logits = q @ k.transpose(1, 2) / temperature
    own = torch.arange(q.shape[1], device=q.device).repeat(len(q))
    return F.cross_entropy(logits.flatten(0, 1), own)
