"""What is published gets its number here, and is kept for those who ask for it again."""
