"""The short-lived process that touches secrets: one job in, one reply out, then it is gone and so is the secret."""
