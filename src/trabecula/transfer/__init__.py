"""From an encoder to a classifier with few labels: linear probes, fine-tuning, thresholds."""
