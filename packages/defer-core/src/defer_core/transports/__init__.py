"""Transports of tasks: one seam (`base`), one module for each adapter."""
