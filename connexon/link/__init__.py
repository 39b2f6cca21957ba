"""What hub and node share of the link between them: bounded frames, and files for parcels too large for memory."""
