"""What was made, kept under its content's address."""
