"""What networks see: where a score comes from, what raises it most, which units go with the label."""
