"""The networks: as published, for real use, for inference, and their weights."""
