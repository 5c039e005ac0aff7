"""What people see of a desk: its page, its metrics and its alerts. Nothing in here may hold trading up."""
