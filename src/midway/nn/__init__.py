"""Tensors in, tensors out: blocks, embeddings, heads, losses, moving averages."""
