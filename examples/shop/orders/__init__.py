"""Customers, their orders, and the ledger."""
