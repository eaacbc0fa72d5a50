"""Networks learn from photos, from patch sets or from small pictures, without labels."""
