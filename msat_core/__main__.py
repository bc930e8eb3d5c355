"""``python -m msat_core``: the same as ``msat``."""

from msat_core.cli import main

if __name__ == "__main__":
    main()
