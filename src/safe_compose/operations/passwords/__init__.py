"""The rotation of a database's password, in the server and in every file that holds it."""
