"""A whole federation on one machine: real processes, real TLS, on the loopback interface.

The same launcher serves the demo, the tests and the measurements.
"""
