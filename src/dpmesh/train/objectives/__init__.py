"""The objectives of the stages, one a file, and what they share."""
