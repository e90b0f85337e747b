"""Everything that users do across the two worlds, in the row of `case.toml`."""
from lib.flows import everything_across as run  # noqa: F401 - the runner calls it
