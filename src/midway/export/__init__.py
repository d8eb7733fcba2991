"""Export of networks to other runtimes, and their exchange through the Hugging Face hub."""
