"""Image backbones: a crop and its keypoints become one fused feature map."""
