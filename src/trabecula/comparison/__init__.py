"""Arms against their controls: who is compared with whom, paired differences, label multipliers."""
