"""What a stage trains: one objective a file."""
