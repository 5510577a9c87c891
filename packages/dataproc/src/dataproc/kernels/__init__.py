"""The kernels' sources. Only `native` imports those that need numba, to compile them."""
