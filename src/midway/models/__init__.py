"""Encoders, dynamics, readout heads and flow networks, and their files of weights."""
