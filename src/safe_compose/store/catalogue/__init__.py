"""The backups in the store; `catalogue` joins the parts that write, read and remove them."""
