"""What follows from results: ratios, targets, the rule of backend="auto"."""
