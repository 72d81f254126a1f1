"""The shipped recipes: `peftune recipes` lists them, `peftune recipes NAME --copy-to DIR` copies one."""
