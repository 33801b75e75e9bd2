"""What the documents suppose: a shop, whose names their code uses."""
