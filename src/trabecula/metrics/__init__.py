"""How good, how sure, and is it better: numpy and scipy only, vectorised over resamples."""
