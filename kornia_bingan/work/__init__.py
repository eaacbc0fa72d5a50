"""Files that appear whole or not at all, folders of runs, and work by several processes."""
