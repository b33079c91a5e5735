"""From an activity to the firings it leads to: one plan for dispatch, dry run and explain."""
