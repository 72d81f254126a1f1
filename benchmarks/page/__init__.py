"""A result as Markdown: each section takes the whole result and gives text, or nothing."""
