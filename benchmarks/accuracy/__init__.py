"""Accuracy of models, of their parts, and agreement with other implementations."""
