"""Self-distillation of masked patches (iBOT)."""

from jaxtyping import Bool, Float
from torch import Tensor

from midway.nn.losses.dino import full_precision


def masked_patch_loss(
    student: Float[Tensor, "batch patches prototypes"],
    targets: Float[Tensor, "batch patches prototypes"],
    is_masked: Bool[Tensor, "batch patches"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the masked patches; log(prototypes) if untrained.

    It is averaged over the masked patches of each image, then over the images, of which those
    without masked patches contribute 0 (iBOT, equation 2 and published code).

    Args:
        student: Raw logits of the student, which sees the masked image.
        targets: Probabilities of the same patches, from `TeacherTargets`.
        is_masked: True for the patches that count.
        temperature: Temperature of the student's softmax.

    """
    with full_precision(student):
        logits = student.float() / temperature
        # H(p, q) = logsumexp(s) - p . s: no table of log-probabilities is kept.
        entropy = logits.logsumexp(-1) - (targets * logits).sum(-1)  # (batch, patches)
        return ((entropy * is_masked).sum(1) / is_masked.sum(1).clamp(min=1)).mean()
