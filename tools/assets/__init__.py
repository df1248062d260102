"""Build the files that the package ships."""
