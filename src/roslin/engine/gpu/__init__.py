"""Answering on a GPU by Triton's kernels. To be imported only where Triton is."""
