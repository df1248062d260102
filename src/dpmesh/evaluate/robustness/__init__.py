"""`dpmesh bench robustness`: how the error grows when what the model is given gets worse."""
