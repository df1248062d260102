"""From an image to a scene: reading, detection, the model, the way back to the full image, and files."""
