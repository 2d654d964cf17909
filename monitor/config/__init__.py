"""What people write: the configuration and policies, read, checked and explained."""
