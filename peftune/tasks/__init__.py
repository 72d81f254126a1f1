"""The kinds of task: how each is trained, scored and said."""
