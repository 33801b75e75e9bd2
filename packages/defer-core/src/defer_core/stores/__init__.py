"""Stores of task records: one seam (`base`), one module for each adapter."""
