"""The LTCHM network in floating point: torch only, no files, no geography.

`config` says how large, `layers` and `attention` are the parts, `transforms` (g_a, g_s) and `hyperprior` (h_a, h_s,
context, parameter network) join them, `likelihood` turns parameters into bits for training, `model` is the whole.
"""
