"""Image files of one kind each, decoded to arrays."""
