"""Indexes of videos, and stores of decoded frames."""
