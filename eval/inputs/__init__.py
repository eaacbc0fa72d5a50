"""What is read, and what damaged files do."""
