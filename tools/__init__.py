"""Scripts that build the shipped files, test fixtures and figures. Run one as `python -m tools.FOLDER.NAME`."""
