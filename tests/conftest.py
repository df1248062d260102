"""Shapes in signatures are checked while the tests run: every module of the package is imported through this hook."""

import torch
from jaxtyping import install_import_hook

install_import_hook("dpmesh", "beartype.beartype")
torch.set_num_threads(1)
