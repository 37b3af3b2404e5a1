"""What networks see: where they look, what they like best, which of their units know the label."""
