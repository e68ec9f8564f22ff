"""Processing algorithms: what compresses, restores, describes and opens."""
