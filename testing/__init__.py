"""What tests and benchmarks import: the lab with its engines and servers, terminals, fixtures."""
