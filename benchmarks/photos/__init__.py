"""Bodies on free photographs, tested against keypoints, the floor and themselves."""
