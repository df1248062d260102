"""Models compared by eye: the same people of an image through several weights and methods, on one sheet."""
