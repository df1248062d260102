"""A result as one HTML page that needs no server and no network."""
