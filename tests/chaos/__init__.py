"""Faults on the real servers: files come, change and go while processes die, and what must hold afterwards is checked.

`make chaos SEED=… ROUNDS=…` runs it on a stack of its own.
"""
