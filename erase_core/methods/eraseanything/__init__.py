"""EraseAnything: Algorithm 1 with its four losses, and its ablations."""
