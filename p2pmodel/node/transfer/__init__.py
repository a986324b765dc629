"""One transfer of a long-lived node: its record, its monitor and its retries."""
