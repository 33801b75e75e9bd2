"""What happens to records besides: repeated, shown, kept."""
