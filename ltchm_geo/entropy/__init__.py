"""Exact entropy coding, in integers: `tables` (probabilities), `rans` (the coder), `integer_net` (their parameters)."""
