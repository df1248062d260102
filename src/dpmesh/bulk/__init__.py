"""Many images: several processes on one machine (`dpmesh predict --processes`), a cluster (`dpmesh bulk`)."""
