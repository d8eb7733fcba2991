"""Multiply-adds that our networks leave out, for comparisons with published counts."""


def left_out(tokens: int, *, wanted: int = 1, width: int = 384) -> int:
    """Multiply-adds of a ViT's block for all tokens but those that are wanted.

    The last block of `VisionTransformer.forward` computes the class token only; published counts
    have all tokens. `tokens` includes the class token.
    """
    projections = 9 * width**2  # of the attention's output, and of the MLP
    return (tokens - wanted) * (projections + 2 * tokens * width)
