"""What a competent user would write without hipray, one script for each bench."""
