"""The SMPL-format body: its files (floor 1) and the layer that poses it."""
