"""Key layouts of published checkpoints of vision transformers, and their conversion to ours."""
