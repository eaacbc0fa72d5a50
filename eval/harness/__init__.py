"""What the protocols share: data, peers, matching, metrics, options and the cache."""
