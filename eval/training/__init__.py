"""Training runs: compared, packed, shipped."""
