"""Training: `recipe` (what to do, as data), `data` (packs to device memory, random crops), `augment`, `optim`, `loop`.

`integerise` turns trained float weights into the integers that files are coded with, `export` writes the weights file.
"""
