"""Networks to compare LTCHM with, trained by the same loop on the same data: `registry` builds them by name.

All are re-implementations from the papers, made variable-rate in one way (`common`), so that they differ in their
architecture and in nothing else. They estimate rates; they write no files.
"""
