"""The four losses of Algorithm 1 and the target of the first: pure functions of tensors.

Velocities are (B, C, h, w), ``v = eps - x_0``. Attention is (B, blocks, heads, Q): the share of
an image query's attention that falls on a word's tokens, in [0, 1]. All is computed in float32 or
wider and returned as a scalar.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .settings import RscVariant


def esd_target(null: Tensor, concept: Tensor, eta: float) -> Tensor:
    """Eq. 2, the bracket: ``v_o(x_t, null) - eta (v_o(x_t, c_un) - v_o(x_t, null))``.

    Both velocities come from the base model (LoRA off), at one state and guidance. ``eta`` >= 0
    says how far past the null prompt the student is pushed.
    """
    null, concept = _wide(null), _wide(concept)
    return null - eta * (concept - null)


def esd_loss(student: Tensor, target: Tensor) -> Tensor:
    """Eq. 2: mean square of ``v_D(x_t, c_un)`` minus :func:`esd_target`."""
    return _mean_square(student, target)


def attention_loss(attention: Tensor) -> Tensor:
    """Eq. 3: attention to the concept's tokens, summed over them, averaged over all else.

    ``attention`` (B, blocks, heads, Q) is that sum already. The mean over heads and queries keeps
    the size, in [0, 1], independent of the resolution.
    """
    return _wide(attention).mean()


def preserve_loss(student: Tensor, target: Tensor) -> Tensor:
    """Eq. 4: mean square of ``v_D(x_t, c_ir)`` minus its flow-matching target.

    The target is the base model's own velocity at states of its rollouts, or ``eps - x_0`` at
    noised pictures.
    """
    return _mean_square(student, target)


def rsc_loss(
    concept: Tensor,
    synonym: Tensor,
    irrelevant: Sequence[Tensor],
    tau: float,
    variant: RscVariant = "text",
) -> Tensor:
    """Eq. 5, reverse self-contrastive, averaged over the batch.

    With u, s, r_k the unit features of F_un, F_syn, F_k (blocks, heads and queries flattened):

    - ``"text"``, anchored on the concept, as the paper's text has it: ``-log(R / (S + R))`` where
      ``S = exp(u.s / tau)`` and ``R = sum_k exp(u.r_k / tau)``;
    - ``"official"``, anchored on the synonym, as the released code has it: ``log(U / (U + R))``
      where ``U = exp(s.u / tau)`` and ``R = sum_k exp(s.r_k / tau)``.

    Both push F_un away from F_syn. All inputs (B, blocks, heads, Q), taken at one state;
    ``concept`` carries the gradient. ``tau`` > 0, at least one ``irrelevant``.
    """
    u, s = _unit_feature(concept), _unit_feature(synonym)
    r = torch.stack([_unit_feature(f) for f in irrelevant], dim=1)
    pair = (u * s).sum(-1) / tau
    anchor = u if variant == "text" else s
    others = torch.logsumexp(torch.einsum("bf,bkf->bk", anchor, r) / tau, dim=-1)
    total = torch.logaddexp(pair, others)
    return (total - others if variant == "text" else pair - total).mean()


def _unit_feature(attention: Tensor) -> Tensor:
    """(B, ...) -> (B, features), length one, so the number of tokens summed over cancels out."""
    return F.normalize(_wide(attention).flatten(1), dim=-1)


def _mean_square(student: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(_wide(student), _wide(target))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
