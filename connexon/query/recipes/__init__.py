"""Training recipes as YAML files, as text and as wire messages; every form reads back to the same recipe."""
