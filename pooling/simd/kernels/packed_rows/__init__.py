"""Short rows: a vector holds the outputs of several rows."""
