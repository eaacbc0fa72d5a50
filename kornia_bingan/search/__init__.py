"""Photos of the same place are found by one code for each photo."""
