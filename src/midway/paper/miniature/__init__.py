"""Miniature benchmark: the paper's methods, trained for minutes and scored, all in the same way."""
