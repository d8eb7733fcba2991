"""Experiments: functions that return the full configuration of a run."""
