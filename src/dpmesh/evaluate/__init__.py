"""Evaluation: a protocol is a frozen value, a source gives its persons, a run scores a model on them."""
