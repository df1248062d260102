"""The regressor: from the fused feature map to root orientation, pose, shape and camera."""
