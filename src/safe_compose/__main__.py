"""`python -m safe_compose` is the `safe-compose` command."""

from safe_compose.shim import main

if __name__ == "__main__":
    raise SystemExit(main())
