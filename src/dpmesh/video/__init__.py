"""People in videos: frames are decoded, people tracked, their bodies smoothed over time."""
