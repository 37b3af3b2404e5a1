"""Drawing: plots, heat maps, image grids."""
