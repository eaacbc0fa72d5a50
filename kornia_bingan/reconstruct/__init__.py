"""A folder of photos becomes a sparse model, a page about it, and scenes for other programs."""
