"""safe-compose: `docker compose down -v` with a verified backup first and an undo after.

A command travels as data through small pure steps; effects stand at the edges. A package imports
only those to the left of it (the contracts in pyproject.toml hold that):

    system - grammar - fastpath - core - credentials - settings - ui - engine - store - offsite
      - volumes - databases - workspace - audit - install - operations - cli - shim

    argv --shim--> harmless? docker.  Else: --grammar--> Invocation --engine--> Observed
      --core--> Plan --ui--> confirmed --operations/guard--> docker
        volumes and databases make the backup, store keeps and verifies it
"""

__version__ = "0.1.0"
