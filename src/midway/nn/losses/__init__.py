"""Losses of the methods, and the heads and statistics that belong to them."""
