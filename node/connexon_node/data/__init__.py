"""The center's data: what each dataset means, the immutable generations that hold it, and simulated centers."""
