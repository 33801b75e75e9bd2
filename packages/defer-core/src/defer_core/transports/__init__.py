"""Transports of tasks: one seam (`base`), one module an adapter."""
