"""From the fused feature map to root orientation, pose, shape and camera (JOTR's cascade, as DPMesh uses it)."""
