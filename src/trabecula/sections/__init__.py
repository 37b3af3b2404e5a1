"""What the report is made of: reading results, wording, tables, figures, pictures, provenance."""
