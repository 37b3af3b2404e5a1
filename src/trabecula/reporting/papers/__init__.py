"""Published results that a report may stand beside its own, each marked as the paper's."""
