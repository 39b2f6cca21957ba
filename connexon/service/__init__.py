"""What hub and node share and a client never loads: the database, setting errors, policy files and GC tuning."""
