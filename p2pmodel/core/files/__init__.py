"""Files that other users must not read or replace."""
