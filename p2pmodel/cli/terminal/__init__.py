"""What commands print: progress, results, tables and the log."""
