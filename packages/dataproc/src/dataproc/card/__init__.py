"""The data card: what a mixture is made of, as a page, as Markdown, as Croissant metadata and as a record."""
