"""Evaluation on published benchmarks: protocols, sources of people, the runner, results and reports."""
