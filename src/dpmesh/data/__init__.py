"""Training data: people that are generated, and people from files."""
