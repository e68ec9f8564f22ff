"""Measuring this codec, conventional ones and the paper's learned ones; nothing here is needed to use the library."""
