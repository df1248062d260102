"""The user's own keypoints and boxes: files of every common format, matched to images and brought to pixels."""
