"""Labels in the forms of other tools: tables, captions, ELAN, FiftyOne. Knows no model and no pixels."""
