"""The running side: one committer, one executor, one performer, and the verbs."""
