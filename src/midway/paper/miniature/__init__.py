"""Miniature benchmark: methods of the paper trained alike for minutes, and scored alike."""
