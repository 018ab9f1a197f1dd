"""Who may talk to whom: keys, roles and their check on every socket that others can reach."""
