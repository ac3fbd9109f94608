"""What doctor looks at, by subject; each check tells findings and changes nothing."""
