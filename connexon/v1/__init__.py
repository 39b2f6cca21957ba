"""The wire contract, generated from proto/connexon/v1; do not edit."""
