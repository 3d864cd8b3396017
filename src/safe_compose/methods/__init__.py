"""How each kind of data is archived, dumped, proved and brought back. Every method is handed an engine."""
