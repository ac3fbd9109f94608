"""Declaration + catalog snapshot → SQL text. Pure: no connection, no clock, no environment."""
