"""Files of the evaluation sets in their real layouts, read into `records.Record`."""
