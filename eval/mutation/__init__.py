"""Single changes to the code that its tests must notice."""
