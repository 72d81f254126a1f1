"""From files and data sets to checked rows, splits, tokens and documents."""
