"""Training: `recipe` (what to do, as data), `data` (packs to device memory, random crops), `augment`, `optim`, `loop`.

`throughput` tells how well a device is used, `evaluate` measures checkpoints of any architecture without files,
`integerise` turns trained float weights into the integers that files are coded with, `export` writes the weights file.
"""
