"""Files that others may have written or may read: opened with care, published whole. Light."""
