"""Image backbones: from a crop and its keypoints to one fused feature map."""
