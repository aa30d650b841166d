"""Answering on a CPU by kernels of our own, in C++."""
