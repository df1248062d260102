"""Training: stages as values, one loop on Lightning Fabric."""
