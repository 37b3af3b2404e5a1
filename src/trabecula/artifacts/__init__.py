"""Files that verbs pass on: each has one module that holds its record, its writer and its reader."""
