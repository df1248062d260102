"""`dpmesh bench robustness`: how errors grow as the model's inputs are corrupted."""
