"""Order in which samples are drawn, and batches of them."""
