"""`safe-compose setup`: what a project's files should say about its data, shown as a diff first."""
