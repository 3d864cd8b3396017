"""The modules for tests and benchmarks: the lab with its engines and servers, terminals, fixtures."""
