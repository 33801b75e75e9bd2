"""The demonstration: starts the shop's processes, defers tasks, and checks what became of them."""
