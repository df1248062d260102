"""Figures and tables of the documentation."""
