"""Building blocks on tensors: transformer blocks, embeddings, heads, losses, moving averages."""
