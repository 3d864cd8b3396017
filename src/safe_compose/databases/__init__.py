"""The kinds of databases: detection, dumps, test restores and restores. `registry` lists them."""
