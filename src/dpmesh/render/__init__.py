"""Triangles to pixels."""
