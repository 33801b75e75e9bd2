"""Stores of task records: one seam (`base`), one module an adapter."""
