"""Numbers become text, tables and pages."""
