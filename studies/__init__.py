"""The experiments of docs/results: which runs each takes, and the tables made of them."""
