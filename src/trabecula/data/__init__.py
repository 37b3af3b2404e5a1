"""What the verbs pass on: manifests, tasks, splits, stores, views, batches, prediction tables."""
