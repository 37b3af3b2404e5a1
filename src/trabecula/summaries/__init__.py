"""What `show` prints of a run folder, and the model card of an export."""
